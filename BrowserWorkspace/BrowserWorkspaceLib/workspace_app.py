"""The browser workspace of one user: a trame application on Slicer's own core, with both modules' work in it."""

import tempfile
from pathlib import Path

import slicer
from InteractiveLearningLib.service.local import LocalService
from InteractiveLearningSlicerLib.volumes import volumeToNode
from InteractiveLearningSlicerLib.workspace import Workspace
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.jobs import Signal
from RefSegSlicerLib.segmentation_logic import SegmentationLogic
from RefSegSlicerLib.translation import tr as _
from trame.app import TrameApp
from trame_slicer import module as trame_slicer_module
from trame_slicer.app.logic.layout_button_logic import LayoutButtonLogic
from trame_slicer.app.logic.segmentation import SegmentEditorLogic
from trame_slicer.core import SlicerApp
from trame_slicer.rca_view import register_rca_factories

from BrowserWorkspaceLib import platform, snapshot
from BrowserWorkspaceLib.cases_panel import CasesPanel
from BrowserWorkspaceLib.double_clicks import DoubleClicks
from BrowserWorkspaceLib.fitting import Fitting
from BrowserWorkspaceLib.image_panel import ImagePanel
from BrowserWorkspaceLib.interact_panel import InteractPanel
from BrowserWorkspaceLib.learn_panel import LearnPanel
from BrowserWorkspaceLib.opening import Opening
from BrowserWorkspaceLib.pump import Pump
from BrowserWorkspaceLib.saving import SavePanel
from BrowserWorkspaceLib.segment_panel import SegmentPanel
from BrowserWorkspaceLib.workspace_ui import TITLE, WorkspaceUI

# After a stroke: what was changed by it is read once.
SETTLED_SECONDS = 0.4
# Between what an image takes and what showing it takes, the page is answered.
SHOWN_SECONDS = 0.01


class WorkspaceApp(TrameApp):
    """server: trame's; home: the store of models and accepted cases; folder: where this user's workspace is saved;
    images: the only folder whose DICOM folders may be opened (None: whatever this process may read); token: of the user
    in whose name the service is asked (None: of this computer's own).

    Event loop's thread only. changed(): something worth saving is no longer what it was. Nothing computes here: models
    segment and learn in the engine service of `home`, shared with everything else on this computer.
    """

    def __init__(self, server, home, folder, images=None, token=None):
        super().__init__(server)
        self.server.enable_module(trame_slicer_module)
        self.home, self.folder, self.images = Path(home), Path(folder), images
        self.token, self.signed_in = token, token is not None
        self.changed = Signal()
        self.volume_node = self.segmentation_node = None
        self.slicer_app = SlicerApp()
        self.scene = self.slicer_app.scene
        platform.prepare(self.scene)
        register_rca_factories(self.slicer_app.view_manager, self.server)
        self.editor = SegmentEditorLogic(self.server, self.slicer_app)
        self._layout = LayoutButtonLogic(self.server, self.slicer_app)
        self.layout_manager = self._layout.layout_manager
        self.workspace = Workspace(self.scene, lambda work: self.pump.soon(work))  # noqa: PLW0108 - the pump comes later
        self.segmentation = SegmentationLogic(self.scene)
        self.pump = Pump(self.state, lambda: self.workspace.turns.busy, self.failed)
        self.opening = Opening()
        self.opening.opened.connect(self._on_image)
        self.opening.masked.connect(self._on_mask)
        self.opening.failed.connect(self.failed)
        self.state.update({"notice": "", "notice_kind": "info", "volume_name": "", "open_busy": False})
        self.state["trame__title"] = TITLE
        self._use(LocalService(self.home, token=token))
        self.segmenting = SegmentPanel(self)
        self.correcting = InteractPanel(self)
        self.cases = CasesPanel(self)
        self.panels = (
            ImagePanel(self),
            self.cases,
            self.segmenting,
            self.correcting,
            LearnPanel(self),
            SavePanel(self),
        )
        self._ui = WorkspaceUI(self, self.panels)
        self.editor.set_ui(self._ui.editor)
        # Views that exist by now know themselves; before, trame-slicer's brushes were made without their view.
        self.scene.Clear()
        for function in (self.workspace.turns.poll, self.opening.poll, self._poll):
            self.pump.add(function)
        views = self.slicer_app.view_manager.get_slice_views()
        self.double_clicks = DoubleClicks(views, self.correcting.draws, self.pump.soon)
        self.fitting = Fitting(self.slicer_app, self.pump.once)
        self.ctrl.on_server_ready.add(lambda **_: self.pump.start())

    def open_files(self, paths) -> None:
        """Open an image (one file, or one folder of DICOM files), or a mask of the image that is open. It is there
        when `changed` tells."""
        self.guarded(lambda: self._leave() or self.opening.files(paths))

    def open_folder(self) -> None:
        """Open the DICOM folder that the page names."""
        state = self.state
        if self.guarded(
            lambda: self._leave() or self.opening.folder(state.open_folder, state.open_series, self.images)
        ):
            state.open_folder_shown = False

    def uploaded(self, files) -> None:
        """Open what the browser has sent: dicts with name and content."""
        self.guarded(lambda: self._leave() or self.opening.uploaded(files))

    def open_sample(self) -> None:
        """Open a head of the demonstration."""
        self.guarded(lambda: self._leave() or self.opening.sample())

    def show(self, volume_node, segmentation_node=None, keep=()) -> None:
        """Work on a volume node, and a segmentation node of it (None: a new one), from now on. Both are in the scene;
        whatever images and masks were worked on before leave it, but for those in `keep`."""
        for name in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"):
            for node in list(self.scene.GetNodesByClass(name)):
                if node not in (volume_node, segmentation_node, *keep):
                    self._remove(node)
        self.segmentation.before.forget()
        first, self.volume_node = self.volume_node is None, volume_node
        if segmentation_node is None:
            segmentation_node = self.slicer_app.segmentation_editor.create_empty_segmentation_node()
            segmentation_node.SetName(f"{volume_node.GetName()} segmentation")
        self.segmentation_node = segmentation_node
        # Not by its show_volume, which also renders the volume in 3D: in software that takes seconds for each image.
        display = self.slicer_app.display_manager
        display.show_volume_in_slice_background(volume_node)
        display.show_volume_in_slice_foreground(None)
        if first:
            snapshot.draw_over_image(segmentation_node)
        self.fitting.fit()
        self.edit()
        self.state.volume_name = volume_node.GetName()
        self._watch(segmentation_node)
        for panel in self.panels:
            panel.shown()
        self.update()
        self.changed()

    def edit(self) -> None:
        """Let the tools to paint with work on the segments as they are now; what they could undo is done for good."""
        editor = self.slicer_app.segmentation_editor
        if editor.active_segmentation_node is not self.segmentation_node or (
            editor.active_volume_node is not self.volume_node
        ):
            editor.set_active_segmentation(self.segmentation_node, self.volume_node)
            return
        editor.deactivate_effect()
        editor.undo_stack.clear()
        if not editor.get_active_segment_id():
            editor.set_active_segment_id(editor.get_nth_segment_id(0))
        editor.trigger_all_signals()

    def opened_reason(self) -> str:
        """Why nothing can be done with the image; empty if one is open."""
        return "" if self.volume_node is not None else _("Open an image first.")

    def leaving_reason(self) -> str:
        """Why what is open cannot be left now; empty if it can."""
        if self.workspace.session is not None or self.workspace.turns.busy:
            return _("A session is open. Accept it, or end it, first.")
        return _("Segmenting. Press Cancel to stop.") if self.segmenting.busy else ""

    def restored(self, volume_node, segmentation_node, chosen=None) -> None:
        """What was worked on before is in the scene again. chosen: what `chosen` was then."""
        self.show(volume_node, segmentation_node)
        for panel in self.panels:
            panel.restore(chosen or {})

    @property
    def chosen(self) -> dict:
        """What people have selected, as JSON can hold it; `restored` takes it back."""
        found = {"panel": self.state.panel}
        for panel in self.panels:
            found |= panel.chosen()
        return found

    def update(self) -> None:
        """Let all panels show what is, enable what can succeed, and say why the rest cannot."""
        for panel in self.panels:
            panel.update()

    def say(self, sentence, kind="info") -> None:
        """Tell people a sentence. kind: info, success, warning or error."""
        self.state.notice, self.state.notice_kind = sentence, kind

    def failed(self, error) -> None:
        """Tell people an error."""
        if not isinstance(error, Cancelled):
            self.say(str(error), "error")

    def close(self) -> None:
        """Leave nothing behind; a session that was not finished can go on later, and so does what is being learnt."""
        self.pump.close()
        self.opening.close()
        for panel in self.panels:
            panel.close()
        self.workspace.endSession(keep=True)
        self.workspace.closeService()
        self.workspace.turns.close()
        self.segmentation.closeRunner()

    def _use(self, service):
        self.workspace.openService(service)
        self.workspace.catalog.failed.connect(self.failed)
        self.workspace.catalog.refresh()
        self.segmentation.use(service)

    def _poll(self):
        if self.state.open_busy != self.opening.busy:
            self.state.open_busy = self.opening.busy
        self.workspace.catalog.poll()
        for panel in self.panels:
            panel.poll()

    def _on_image(self, image, name):
        # The tools to paint with ask for it: 70 ms for 256 cubed voxels, in a round of their own. It is remembered.
        image.data.GetScalarRange()
        self.pump.once("image", SHOWN_SECONDS, lambda: self._show_image(image, name))

    def _show_image(self, image, name):
        self._leave()  # much can happen while an image is read
        self.show(volumeToNode(image, self.scene, name))
        self.say(_("'{name}' is open.").format(name=name))

    def _on_mask(self, taken, name):
        if self.volume_node is None:
            raise BadInput(_("Open the image first, and then its mask."))
        self._leave()
        with tempfile.TemporaryDirectory(prefix="refseg-") as folder:
            header = Path(folder) / "header.seg.nrrd"
            header.write_bytes(taken.header)
            node = snapshot.put_segmentation_back(self.scene, taken, header, self.volume_node)
        self.show(self.volume_node, node)
        self.say(_("The segments of '{name}' are open.").format(name=name))

    def _leave(self):
        """Raise BadInput if what is open cannot be left now."""
        reason = self.leaving_reason()
        if reason:
            raise BadInput(reason)

    def _watch(self, node):
        """Hear of whatever happens to the segments; one stroke tells of itself several times."""
        segmentation = node.GetSegmentation()
        for name in ("SourceRepresentationModified", "SegmentModified", "SegmentAdded", "SegmentRemoved"):
            segmentation.AddObserver(getattr(slicer.vtkSegmentation, name), self._on_segments)

    def _on_segments(self, segmentation, _event):
        if self.segmentation_node is not None and segmentation is self.segmentation_node.GetSegmentation():
            self.pump.once("segments", SETTLED_SECONDS, self._settled)

    def _settled(self):
        self.segmenting.settled()
        self.update()
        self.changed()

    def _remove(self, node):
        display = node.GetDisplayNode()
        self.scene.RemoveNode(node)
        if display is not None:
            self.scene.RemoveNode(display)

    def guarded(self, work, quiet=False) -> bool:
        """True if it was done; else what stood against it has been told. quiet: what was said before stays."""
        with self.state:
            if not quiet:
                self.state.notice = ""
            try:
                work()
            except RefSegError as error:
                self.failed(error)
                return False
            return True
