"""The panel's section for several volumes, or all frames of a sequence. Of Qt it knows the states of a check box."""

import slicer
from RefSegLib.errors import BadInput

from RefSegSlicerLib import doubt
from RefSegSlicerLib.batch import Batch, Frames, Volumes, browserOf
from RefSegSlicerLib.translation import tr as _


class BatchSection:
    """ui: widgets by name; logic: SegmentationLogic; options(): what each volume is segmented with; begin(make): starts
    the job that make() gives; checked, unchecked: the states of an item in a list."""

    def __init__(self, ui, logic, options, begin, checked, unchecked):
        self.ui, self.logic, self._options = ui, logic, options
        self._checked, self._unchecked = checked, unchecked
        self._listed, self._sequences = [], []
        self._reason = ""
        ui.batchButton.connect("clicked(bool)", lambda *_: begin(self.make))
        ui.batchSelector.connect("currentIndexChanged(int)", lambda *_: self.update())
        ui.batchList.connect("itemChanged(QListWidgetItem*)", lambda *_: self.update())

    def make(self):
        """The batch that is chosen. Raises BadInput if nothing is."""
        options = self._options()
        index = self.ui.batchSelector.currentIndex
        if index > 0:
            node = self.logic.scene.GetNodeByID(self._sequences[index - 1][0])
            if node is None or browserOf(node) is None:
                raise BadInput(_("The sequence was removed."))
            return Batch(Frames(self.logic, node, **options))
        nodes = [self.logic.scene.GetNodeByID(identifier) for identifier in self._chosen()]
        return Batch(Volumes(self.logic, [node for node in nodes if node is not None], **options))

    def poll(self):
        """Follow the scene while it is shown."""
        if not self.ui.batchSection.collapsed:
            self._fill()

    def update(self, reason=None):
        """Enable what can succeed. reason: why nothing at all can be segmented now (None: as before)."""
        self._reason = self._reason if reason is None else reason
        ui = self.ui
        frames = ui.batchSelector.currentIndex > 0
        ui.batchList.enabled = not frames  # not hidden: what is shown in a collapsed section stays shown
        ui.batchList.toolTip = (
            _("All frames are segmented; choose 'Volumes of the scene' above to choose among these.")
            if frames
            else _("Which volumes to segment. Each gets a segmentation of its own.")
        )
        nothing = "" if frames or self._chosen() else _("Check at least one volume.")
        why = self._reason or nothing
        ui.batchButton.enabled = not why
        ui.batchButton.toolTip = why or _("Segments one after the other. What is done stays when you cancel.")
        ui.batchSelector.toolTip = (
            _("All frames are segmented, into a sequence of segmentations that follows that of the volume.")
            if frames
            else _("What to segment, one after the other, with the model and the settings above.")
        )

    def _fill(self):
        """Offer the volumes and sequences of the scene; what was checked stays so."""
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", self.logic.scene)
        volumes = [node for node in volumes if node.GetClassName() == "vtkMRMLScalarVolumeNode"]
        volumes = [node for node in volumes if not node.GetHideFromEditors() and not node.GetAttribute(doubt.IMAGE)]
        listed = [(node.GetID(), node.GetName()) for node in volumes]
        sequences = [(node.GetID(), node.GetName()) for node in volumes if browserOf(node) is not None]
        if listed != self._listed:
            chosen, known = set(self._chosen()), {identifier for identifier, _name in self._listed}
            box = self.ui.batchList
            box.blockSignals(True)
            box.clear()
            self._listed = listed
            box.addItems([name for _identifier, name in listed])
            for row, (identifier, _name) in enumerate(listed):
                new = identifier not in known or identifier in chosen
                box.item(row).setCheckState(self._checked if new else self._unchecked)
            box.blockSignals(False)
            self.update()
        if sequences != self._sequences or not self.ui.batchSelector.count:
            self._sequences = sequences
            selector = self.ui.batchSelector
            selector.blockSignals(True)
            selector.clear()
            frames = [_("All frames of '{name}'").format(name=name) for _identifier, name in sequences]
            selector.addItems([_("Volumes of the scene"), *frames])
            selector.blockSignals(False)
            self.update()

    def _chosen(self):
        states = [self.ui.batchList.item(row).checkState() for row in range(self.ui.batchList.count)]
        pairs = zip(self._listed, states, strict=False)
        return [identifier for (identifier, _name), state in pairs if state == self._checked]
