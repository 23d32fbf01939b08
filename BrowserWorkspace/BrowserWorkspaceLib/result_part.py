"""What was found: quality in words, the mask before reflection, places in doubt, the similarity that reflection saw."""

import slicer
from RefSegSlicerLib import doubt, masks, mrml, provenance, similarity, words
from RefSegSlicerLib.translation import tr as _
from trame.widgets import html
from trame.widgets.vuetify3 import VList, VListItem, VSwitch

from BrowserWorkspaceLib.chart import chart
from BrowserWorkspaceLib.widgets import heading, quoted


class ResultPart:
    """app: WorkspaceApp. Everything is about its segmentation node."""

    def __init__(self, app):
        self._app, self._state, self._told = app, app.state, None
        self._places = []
        self._state.update(
            {
                "quality": "",
                "done": "",
                "curve": "",
                "before": False,
                "before_why": "",
                "doubt": False,
                "doubt_why": "",
                "places": [],
            }
        )
        self._state.change("before")(self._on_before)
        self._state.change("doubt")(self._on_doubt)

    def build(self):
        """Make the controls, where the page is being made."""
        html.Div(
            _("Not known yet: segment the volume first."),
            v_if=("!quality",),
            classes="text-body-2 text-medium-emphasis",
        )
        html.Div(v_html=("quality",), classes="text-body-2 refseg-quality")
        for name, text, tip in (
            (
                "before",
                _("Before reflection"),
                _("Shows the first mask in the place of the result, to compare them. The result stays as it is."),
            ),
            ("doubt", _("Suspect places"), _("Colors what may be wrong, from yellow (look twice) to red.")),
        ):
            with html.Div(title=(f"{name}_why || {quoted(tip)}",)):
                VSwitch(
                    v_model=(name,),
                    label=text,
                    density="compact",
                    hide_details=True,
                    color="primary",
                    disabled=(f"!!{name}_why",),
                    classes=f"refseg-{name}",
                )
        with (
            html.Div(title=_("Let all slice views go there."), v_if=("places.length",)),
            VList(density="compact", max_height=160, classes="refseg-places overflow-y-auto"),
            VListItem(v_for="(place, number) in places", key="number", click=(self.jump, "[number]"), min_height=28),
        ):
            html.Span("{{ place }}", classes="text-caption")
        with html.Div(v_if=("curve",)):
            heading(_("Agreement with the image"))
            html.Div(v_html=("curve",), classes="refseg-curve")
        with html.Div(v_if=("done",)):
            heading(_("What was done"))
            html.Div(v_html=("done",), classes="text-caption")

    def shown(self):
        """Another volume is worked on."""
        self._told = None
        self._state.doubt = False
        self.update()

    def jump(self, number):
        """Let all slice views show a place in doubt, the most important one first."""
        if 0 <= number < len(self._places):
            point = mrml.worldFromIndex(self._places[number].index, self._app.volume_node)
            slices = slicer.vtkMRMLSliceNode
            slices.JumpAllSlices(self._app.scene, *point.tolist(), slices.CenteredJumpSlice)

    def update(self):
        """Show what is known of the segmentation, and say why the rest is not."""
        state, node, volume = self._state, self._app.segmentation_node, self._app.volume_node
        done = provenance.stamped(node)
        changed = masks.changedSegments(node.GetSegmentation()) if done else ()
        if (done, changed) != self._told:
            self._told = done, changed
            state.quality = words.table(done.get("found") or {}, changed) if done else ""
            state.done = words.whatWasDone(done) if done else ""
            state.curve = chart(_("Candidate, then rounds"), _("Similarity"), similarity.seriesOf(done))
        before = self._app.segmentation.before
        reason = before.reason(node)
        if before.shown and reason:
            before.showResult()
        state.before, state.before_why = before.shown, reason
        known = doubt.doubtNode(volume) is not None
        state.doubt_why = (
            ""
            if known
            else _("Segment the volume with a model that reflects on its result; then this shows what may be wrong.")
        )
        if not known:
            state.doubt = False
        elif state.doubt:
            self._app.segmentation.showDoubt(True)
        self._places = doubt.placesOf(volume)
        state.places = [words.place(place) for place in self._places]

    def _on_before(self, before, **_options):
        first = self._app.segmentation.before
        if before and not first.shown:
            first.show(self._app.segmentation_node)
        elif not before and first.shown:
            first.showResult()

    def _on_doubt(self, doubt, **_options):
        self._app.segmentation.showDoubt(bool(doubt))
