"""Where a model looks: by itself, everywhere, or in a box, set slice by slice or by its handles in the views."""

import numpy as np
import slicer
from InteractiveLearningLib.planes import plane_name
from InteractiveLearningSlicerLib.clicks import hiddenNode, removeNode
from RefSegLib.errors import BadInput
from RefSegSlicerLib import mrml
from RefSegSlicerLib.model_section import AUTOMATIC, KINDS, ROI, aboutRegion
from RefSegSlicerLib.segmentation_logic import WHOLE
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VRangeSlider, VSelect

COLOR = (1.0, 0.8, 0.2)
TEXTS = dict(zip(KINDS, (_("Automatic"), _("Whole volume"), _("A box")), strict=True))


class RegionPart:
    """app: WorkspaceApp. The box is a ROI markup of its scene as long as it is chosen.

    State: region (one of KINDS); region_0, region_1, region_2: first and last slice along k, j, i.
    """

    def __init__(self, app):
        self._app, self._state = app, app.state
        self._node = self._box = None
        self._state.update(
            {"region": AUTOMATIC, "region_about": "", "region_axes": [], "region_why": "", "region_placed": False}
        )
        self._state.update({f"region_{axis}": [0, 0] for axis in range(3)})
        self._state.change("region")(self._on_region)
        self._state.change(*(f"region_{axis}" for axis in range(3)))(self._on_sliders)

    def build(self):
        """Make the controls, where the page is being made."""
        with html.Div(title=("region_why || region_about",)):
            VSelect(
                v_model=("region",),
                items=("region_kinds", [{"title": text, "value": kind} for kind, text in TEXTS.items()]),
                label=_("Where it looks"),
                density="compact",
                hide_details=True,
                disabled=("segment_running || !!region_why",),
                classes="mb-2 refseg-region",
            )
        with html.Div(v_if=("region_placed",), classes="mb-3"):
            html.Div(_("Drag its handles in the slice views, or choose its slices:"), classes="text-caption")
            for axis in range(3):
                VRangeSlider(
                    v_model=(f"region_{axis}",),
                    min=0,
                    max=(f"(region_axes[{axis}] || [0, 0])[1]",),
                    step=1,
                    strict=True,
                    label=(f"(region_axes[{axis}] || [''])[0]",),
                    thumb_label=True,
                    hide_details=True,
                    density="compact",
                    disabled=("segment_running",),
                    classes=f"mx-2 refseg-region-{axis}",
                    title=_("The first and the last slice of the box."),
                )

    def chosen_region(self):
        """What SegmentationLogic.segment is told: None, WHOLE or the ROI node."""
        return {AUTOMATIC: None, WHOLE: WHOLE}.get(self._state.region, self._node)

    def shown(self):
        """Another volume is worked on: a box of the one before is none of it."""
        grid = mrml.worldGrid(self._app.volume_node)
        self._state.region_axes = [[plane_name(grid, axis), count - 1] for axis, count in enumerate(grid.shape)]
        self._remove()
        self._state.region = AUTOMATIC

    def update(self):
        """Say what is chosen, or why nothing can be; in a session the box would be in the way of its tools."""
        if self._node is not None:
            self._node.GetDisplayNode().SetVisibility(self._app.workspace.session is None)
        self._state.region_why = self._app.opened_reason()
        self._state.region_about = aboutRegion(self._state.region)

    def poll(self):
        """Somebody may have dragged the box."""
        if self._node is None:
            return
        try:
            box = mrml.boxFromRoi(self._node, self._app.volume_node)
        except BadInput:
            return  # dragged out of the volume: told when it is segmented
        if box != self._box:
            self._tell(box)
            self._app.changed()

    def chosen(self) -> dict:
        """What is selected here."""
        return {"region": self._state.region, "region_box": self._box}

    def restore(self, chosen):
        """Select what `chosen` told."""
        if chosen.get("region") in KINDS:
            self._state.region = chosen["region"]
        if self._state.region == ROI:
            self._make(tuple(chosen.get("region_box") or self._middle()))

    def _on_region(self, region, **_options):
        if self._app.volume_node is None:
            return
        if region == ROI and self._node is None:
            self._make(self._middle())
        elif region != ROI:
            self._remove()
        self.update()
        self._app.changed()

    def _on_sliders(self, **_options):
        if self._node is None:
            return
        ranges = [sorted(int(value) for value in self._state[f"region_{axis}"]) for axis in range(3)]
        box = (*(low for low, _high in ranges), *(high + 1 for _low, high in ranges))
        if box != self._box:
            self._place(box)
            self._app.changed()

    def _middle(self):
        """The middle half of the volume."""
        shape = np.array(mrml.shapeOf(self._app.volume_node))
        lower = shape // 4
        return (*lower.tolist(), *np.maximum(shape - lower, lower + 1).tolist())

    def _make(self, box):
        self._remove()
        self._node = hiddenNode(self._app.scene, "vtkMRMLMarkupsROINode", _("Region"), COLOR)
        display = self._node.GetDisplayNode()
        display.SetHandlesInteractive(True)
        display.SetFillOpacity(0.1)
        display.SetPropertiesLabelVisibility(False)
        self._place(box)
        self._tell(box)

    def _place(self, box):
        """Put the ROI around voxels: k0, j0, i0, k1, j1, i1, upper exclusive; turned as the volume is."""
        volume, lower, upper = self._app.volume_node, np.array(box[:3]), np.array(box[3:])
        corner = mrml.worldFromIndex((lower + upper - 1) / 2, volume)
        grid = mrml.worldGrid(volume)
        axes = (np.array(grid.direction) * mrml.RAS_TO_LPS)[::-1]  # of i, j, k, in RAS
        if np.linalg.det(axes) < 0:
            axes[2] *= -1  # a box looks the same from its other end
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = axes.T, corner
        modified = self._node.StartModify()
        self._node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
        self._node.SetSize(*((upper - lower) * grid.spacing)[::-1].tolist())
        self._node.EndModify(modified)
        self._box = tuple(int(value) for value in box)

    def _tell(self, box):
        self._box = box
        for axis in range(3):
            self._state[f"region_{axis}"] = [box[axis], box[3 + axis] - 1]
        self._state.region_placed = True  # not earlier: a page's sliders would tell what they do not know yet

    def _remove(self):
        node, self._node, self._box, self._state.region_placed = self._node, None, None, False
        if node is not None:
            removeNode(self._app.scene, node)
