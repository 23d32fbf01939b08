"""The panel's result: quality, the mask before reflection, places in doubt, similarity, what was done. Knows no Qt."""

import slicer

from RefSegSlicerLib import doubt, masks, mrml, plots, provenance, similarity, words
from RefSegSlicerLib.translation import tr as _


class ResultSection:
    """ui: widgets by name; logic: SegmentationLogic; values(): the parameter node's wrapper; guarded(work): runs it,
    and tells errors."""

    def __init__(self, ui, logic, values, guarded):
        self.ui, self.logic, self._values = ui, logic, values
        self._places = self._told = None
        ui.beforeBox.connect("clicked(bool)", lambda shown: guarded(lambda: self.onBefore(shown)))
        ui.placesList.connect("currentRowChanged(int)", lambda row: guarded(lambda: self.onPlace(row)))
        ui.placesList.connect("itemClicked(QListWidgetItem*)", lambda item: guarded(self.onPlaceAgain))
        ui.plotButton.connect("clicked(bool)", lambda *_: guarded(self.onPlot))

    def enter(self):
        """The segments may have been changed since the last visit."""
        self._told = None

    def exit(self):
        """Nothing but the result is left to see when the module is left."""
        self.logic.before.showResult()

    def close(self):
        """Leave nothing behind."""
        self.exit()
        plots.removePlot(self.logic.scene, similarity.KEY)

    def onBefore(self, shown):
        """Show the first mask, or the result again."""
        if shown:
            self.logic.before.show(self._values().outputSegmentation)
        else:
            self.logic.before.showResult()
        self.update()

    def onPlace(self, row):
        """Let all slice views show a place in doubt, wherever the volume lies."""
        volume = self._volume()
        if volume is not None and self._places and 0 <= row < len(self._places):
            point = mrml.worldFromIndex(self._places[row].index, volume)
            slices = slicer.vtkMRMLSliceNode
            slices.JumpAllSlices(self.logic.scene, *point.tolist(), slices.CenteredJumpSlice)

    def onPlaceAgain(self):
        """A click on the place that is chosen already goes there once more."""
        self.onPlace(self.ui.placesList.currentRow)

    def onPlot(self):
        """Show what reflection saw."""
        done = provenance.stamped(self._values().outputSegmentation)
        plots.reveal(similarity.showSimilarity(self.logic.scene, done))

    def update(self):
        """Show what is known of the chosen segmentation and volume, and say why the rest is not."""
        ui, values = self.ui, self._values()
        node = values.outputSegmentation
        done = provenance.stamped(node)
        told = (None if node is None else node.GetID()), done
        if told != self._told:
            self._told = told
            changed = masks.changedSegments(node.GetSegmentation()) if done else ()
            table = words.table(done.get("found") or {}, changed) if done else ""
            ui.qualityLabel.text = table or _("Not known yet: segment the volume first.")
            ui.doneLabel.text = words.whatWasDone(done) if done else self._nothingDone(node)
            self._updatePlot(done)
        curves = similarity.seriesOf(done)
        ui.plotButton.enabled = bool(curves)
        ui.plotButton.toolTip = (
            _("Plots how well the image that each candidate mask implies agrees with the real one.")
            if curves
            else _("Segment the volume with a model that reflects on its result first.")
        )
        self._updateBefore(node)
        self._updateDoubt(self._volume())

    @staticmethod
    def _nothingDone(node):
        if node is None:
            return _("Choose a segmentation above.")
        return _("This segmentation was not made by RefSeg, or before it kept a record.")

    def _updatePlot(self, done):
        """A plot that is shown is of this result."""
        if plots.plotOf(self.logic.scene, similarity.KEY) is not None:
            if similarity.seriesOf(done):
                similarity.showSimilarity(self.logic.scene, done)
            else:
                plots.removePlot(self.logic.scene, similarity.KEY)

    def _updateBefore(self, node):
        before = self.logic.before
        reason = before.reason(node)
        if before.shown and reason:
            before.showResult()
        self.ui.beforeBox.checked = before.shown
        self.ui.beforeBox.enabled = not reason
        self.ui.beforeBox.toolTip = reason or _(
            "Shows the first mask in the place of the result, to compare them. The result itself stays as it is."
        )

    def _volume(self):
        """The volume that the chosen segmentation was made of, else the chosen volume."""
        node = self._values().outputSegmentation
        made = None if node is None else node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        return made if provenance.stamped(node) is not None and made is not None else self._values().inputVolume

    def _updateDoubt(self, volume):
        ui = self.ui
        known = doubt.doubtNode(volume) is not None
        ui.doubtBox.enabled = known or ui.doubtBox.checked
        ui.doubtBox.toolTip = (
            _("Colors what may be wrong, from yellow (look twice) to red, in the slice views that show the volume.")
            if known
            else _("Segment the volume with a model that reflects on its result; then this shows what may be wrong.")
        )
        places = doubt.placesOf(volume)
        if places != self._places:
            self._places = places
            ui.placesList.blockSignals(True)
            ui.placesList.clear()
            ui.placesList.addItems([words.place(place) for place in places])
            ui.placesList.blockSignals(False)
        ui.placesList.visible = known  # in a panel of its own, which is what a collapsed section hides
        ui.placesList.enabled = bool(places)
        ui.placesList.toolTip = (
            _("Where to look first, the most important place on top. Choose one, and all slice views go there.")
            if places
            else _("No place is more likely wrong than right.")
        )
