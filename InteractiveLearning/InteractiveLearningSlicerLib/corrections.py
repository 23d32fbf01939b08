"""The panel's section of corrections: what its controls do, and what they show. Knows the widgets, not Qt."""

from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import shortcuts, words
from InteractiveLearningSlicerLib.tools import POINTS, SHAPES, UNSIGNED

TOOLS = (POINTS, *SHAPES)
# Controls of the section whose tooltips change with what is going on are set by `update`; all of them by `_rest`.
CONTROLS = (
    "segmentsTable",
    "axisSelector",
    "firstSliceBox",
    "lastSliceBox",
    "limitsButton",
    *(f"{tool}Button" for tool in TOOLS),
    "insideButton",
    "outsideButton",
    "planeSelector",
    "nextButton",
    "confirmButton",
    "undoButton",
    "redoButton",
    "exportButton",
    "lockedBox",
    "patientEdit",
    "acceptButton",
    "endButton",
)


class Corrections:
    """ui: widgets by name; logic: see PanelLogic; editor: EditorSection; guarded(work): runs it, and tells errors;
    say(sentence): tells it."""

    def __init__(self, ui, logic, editor, guarded, say):
        self.ui, self.logic, self._editor = ui, logic, editor
        self._guarded, self._say, self._suggestion = guarded, say, None
        buttons = {
            "insideButton": lambda: self.onSide(True),
            "outsideButton": lambda: self.onSide(False),
            "lockedBox": self.onLocked,
            "undoButton": logic.undo,
            "redoButton": logic.redo,
            "nextButton": self.onNext,
            "confirmButton": self.onConfirm,
            "limitsButton": self.onLimits,
        }
        buttons |= {f"{tool}Button": lambda tool=tool: self.onTool(tool) for tool in TOOLS}
        for name, action in buttons.items():
            getattr(ui, name).connect("clicked(bool)", lambda *_, action=action: guarded(action))
        ui.insideButton.checked = True
        self._tips = {name: getattr(ui, name).toolTip for name in CONTROLS}
        ui.segmentsTable.connect("selectionChanged(QItemSelection,QItemSelection)", self.onSegmentChosen)
        ui.axisSelector.connect("currentIndexChanged(int)", self.onAxisChosen)
        for box in (ui.firstSliceBox, ui.lastSliceBox):
            box.connect("valueChanged(int)", self.onLimitChanged)

    def begin(self, begun):
        """A session has begun: see beginning.Begun."""
        planes = [plane for plane, _count in self.logic.planes()]
        offered = [_("best plane"), *planes]
        for selector, texts in ((self.ui.axisSelector, planes), (self.ui.planeSelector, offered)):
            selector.blockSignals(True)
            selector.clear()
            selector.addItems(texts)
            selector.blockSignals(False)
        self.ui.segmentsTable.blockSignals(True)
        self.ui.segmentsTable.setSegmentationNode(self.logic.segmentationNode)
        self.ui.segmentsTable.setSelectedSegmentIDs([self.logic.activeSegment])
        self.ui.segmentsTable.blockSignals(False)
        self._editor.show(self.logic.volumeNode, self.logic.segmentationNode)
        self.ui.corrections.collapsed = False
        self._ask(self.logic.activeSegment, words.begun(begun))

    def end(self):
        """The session is over. The next begins with inside, as people expect of a first point."""
        self._suggestion = None
        self.ui.insideButton.checked, self.ui.outsideButton.checked = True, False
        self.ui.corrections.collapsed = True
        self.ui.segmentsTable.setSegmentationNode(None)
        self._editor.show(None, None)

    def onSegmentChosen(self, *selections):
        """Prompts speak of this segment from now on."""
        chosen = self.ui.segmentsTable.selectedSegmentIDs()
        if self.logic.session is not None and chosen and chosen[0] != self.logic.activeSegment:
            self._guarded(lambda: self._ask(chosen[0], []))

    def _ask(self, identifier, before):
        """Turn to a segment; where it begins and ends is asked first. before: sentences that come first."""
        if identifier not in self.logic.segmentIds():
            self._say(_("This segment was added after the session began. End the session, and start it with it."))
            return
        self.logic.activeSegment, self._suggestion = identifier, None
        self._editor.select(identifier)

        def asked(limits):
            axis, first, last, known = limits
            self._showLimits(axis, first, last)
            plane = self.logic.planes()[axis][0]
            question = words.limits(self.logic.segmentName(identifier), plane, limits if known else None)
            self._say("\n".join([*before, question]))

        self.logic.proposeLimits(asked)

    def onAxisChosen(self, axis):
        """Limits are counted in other slices: all of them, to begin with."""
        self._showLimits(axis, 0, self.logic.planes()[axis][1] - 1)

    def onLimitChanged(self, index):
        """Let the slice view show the slice that is named as a limit."""
        self._guarded(lambda: self.logic.showSlice(self.ui.axisSelector.currentIndex, index))

    def _showLimits(self, axis, first, last):
        self.ui.axisSelector.blockSignals(True)
        self.ui.axisSelector.setCurrentIndex(axis)
        self.ui.axisSelector.blockSignals(False)
        for box, value in ((self.ui.firstSliceBox, first), (self.ui.lastSliceBox, last)):
            box.blockSignals(True)
            box.maximum = self.logic.planes()[axis][1] - 1
            box.value = value
            box.blockSignals(False)

    def onLimits(self):
        """The structure lies between two slices."""
        first, last = self.ui.firstSliceBox.value, self.ui.lastSliceBox.value
        self.logic.setLimits(self.ui.axisSelector.currentIndex, min(first, last), max(first, last))
        self._say(_("Now correct where the mask is wrong, or press Next slice."))

    def onTool(self, tool):
        """Draw with a tool until its button is pressed again."""
        if self.logic.tools.tool == tool:
            self.logic.tools.leave()
        else:
            self._editor.rest()
            self.logic.tools.take(tool, self.ui.insideButton.checked)

    def onSide(self, positive):
        """What is drawn from now on is inside, or outside."""
        self.ui.insideButton.checked, self.ui.outsideButton.checked = positive, not positive
        if self.logic.tools.tool is not None:
            self.logic.tools.take(self.logic.tools.tool, positive)

    def onLocked(self):
        """Lock the segment that is shown, or unlock it."""
        locked = self.ui.lockedBox.checked
        self.logic.tools.leave()
        self.logic.setLocked(self.logic.activeSegment, locked)

    def onNext(self):
        """Go where another outline helps most, in the chosen plane or in the best."""
        plane = self.ui.planeSelector.currentIndex
        self.logic.nextSlice(plane - 1 if plane > 0 else None, self._suggested)

    def _suggested(self, suggestion):
        self._suggestion = None if isinstance(suggestion, str) else suggestion
        self._say(suggestion if isinstance(suggestion, str) else words.suggested(suggestion))

    def onConfirm(self):
        """The slice that was asked for is right as it is."""
        self.logic.confirmSlice(self._suggestion.axis, self._suggestion.index)
        self._suggestion = None
        self._say(_("Taken as an outline. Press Next slice to go on."))

    def takeEdits(self):
        """What was painted elsewhere enters the session."""
        if self.logic.session is not None:
            self.logic.takeEdits(lambda count: self._say(words.edits(count)) if count else None)

    def update(self):
        """Show what can be done, and say why the rest cannot."""
        running = self.logic.session is not None
        self.ui.corrections.enabled = running
        for name in CONTROLS:
            getattr(self.ui, name).toolTip = self._tips[name] if running else _("Press Start first.")
        if running:
            self._updateControls()

    def _updateControls(self):
        ui, tool = self.ui, self.logic.tools.tool
        undo, redo = self.logic.undoName, self.logic.redoName
        ui.undoButton.enabled, ui.redoButton.enabled = bool(undo), bool(redo)
        _tip(ui, "undoButton", _("Undo {what}").format(what=undo) if undo else _("There is nothing to undo."))
        _tip(ui, "redoButton", _("Redo {what}").format(what=redo) if redo else _("There is nothing to redo."))
        _tip(ui, "nextButton", _("Go to the slice where another outline helps most, and say why."))
        locked = self.logic.isLocked(self.logic.activeSegment)
        ui.lockedBox.checked = locked
        for name in TOOLS:
            button = getattr(ui, f"{name}Button")
            button.checked, button.enabled = name == tool, not locked
            _tip(ui, f"{name}Button", words.tool(name, locked))
        for name in ("insideButton", "outsideButton"):
            getattr(ui, name).enabled = tool not in UNSIGNED
            _tip(ui, name, words.side(name == "insideButton", tool in UNSIGNED))
        asked = self._suggestion is not None
        ui.confirmButton.enabled = asked and not locked
        _tip(ui, "confirmButton", words.confirm(self._suggestion.index if asked else None, locked))
        ui.limitsButton.enabled = not locked
        ui.limitsButton.toolTip = words.useLimits(locked)
        ui.qualityLabel.text = words.estimate(self.logic.estimatedDice())


def _tip(ui, name, text):
    button = getattr(ui, name)
    button.toolTip = shortcuts.tip(name, text) if button.enabled else text
