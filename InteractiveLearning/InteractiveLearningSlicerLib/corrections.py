"""The panel's section of corrections: what its controls do, and what they show. Knows the widgets, not Qt."""

from slicer.i18n import tr as _

from InteractiveLearningSlicerLib import words
from InteractiveLearningSlicerLib.tools import POINTS, SHAPES, UNSIGNED

TOOLS = (POINTS, *SHAPES)


class Corrections:
    """ui: widgets by name; logic: SessionLogic; guarded(work): runs it, and tells errors; say(sentence): tells it."""

    def __init__(self, ui, logic, guarded, say):
        self.ui, self.logic, self._guarded, self._say, self._suggestion = ui, logic, guarded, say, None
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
        ui.segmentSelector.connect("currentIndexChanged(int)", self.onSegmentChosen)
        ui.axisSelector.connect("currentIndexChanged(int)", self.onAxisChosen)
        for box in (ui.firstSliceBox, ui.lastSliceBox):
            box.connect("valueChanged(int)", self.onLimitChanged)

    def begin(self, begun):
        """A session has begun: see beginning.Begun."""
        planes = [_("{plane} slices").format(plane=plane) for plane, _count in self.logic.planes()]
        names = [self.logic.segmentName(identifier) for identifier in self.logic.segmentIds()]
        offered = [_("best plane"), *planes]
        for selector, texts in (
            (self.ui.axisSelector, planes),
            (self.ui.planeSelector, offered),
            (self.ui.segmentSelector, names),
        ):
            selector.blockSignals(True)
            selector.clear()
            selector.addItems(texts)
            selector.blockSignals(False)
        self._say("\n".join([*words.begun(begun), self._ask(0)]))

    def onSegmentChosen(self, index):
        """Prompts speak of this segment from now on."""
        if self.logic.session is not None and index >= 0:
            self._guarded(lambda: self._say(self._ask(index)))

    def _ask(self, index):
        """Turn to a segment; where it begins and ends is asked first. Returns the question."""
        self.logic.activeSegment, self._suggestion = self.logic.segmentIds()[index], None
        limits, planes = self.logic.proposeLimits(), self.logic.planes()
        axis = self.logic.session.handiest_axis() if limits is None else limits[0]
        self._showLimits(axis, *(limits[1:] if limits is not None else (0, planes[axis][1] - 1)))
        return words.limits(self.logic.segmentName(self.logic.activeSegment), planes[axis][0], limits)

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
        suggestion = self.logic.nextSlice(plane - 1 if plane > 0 else None)
        self._suggestion = None if isinstance(suggestion, str) else suggestion
        self._say(suggestion if isinstance(suggestion, str) else words.suggested(suggestion))

    def onConfirm(self):
        """The slice that was asked for is right as it is."""
        self.logic.confirmSlice(self._suggestion.axis, self._suggestion.index)
        self._suggestion = None
        self._say(_("Taken as an outline. Press Next slice to go on."))

    def takeEdits(self):
        """What was painted elsewhere enters the session."""
        count = self.logic.takeEdits() if self.logic.session is not None else 0
        if count:
            self._say(words.edits(count))

    def update(self):
        """Show what can be done, and say why the rest cannot."""
        ui, tool = self.ui, self.logic.tools.tool
        undo, redo = self.logic.session.undo_name, self.logic.session.redo_name
        ui.undoButton.enabled, ui.redoButton.enabled = bool(undo), bool(redo)
        ui.undoButton.toolTip = _("Undo {what}").format(what=undo) if undo else _("There is nothing to undo.")
        ui.redoButton.toolTip = _("Redo {what}").format(what=redo) if redo else _("There is nothing to redo.")
        locked = self.logic.isLocked(self.logic.activeSegment)
        ui.lockedBox.checked = locked
        for name in TOOLS:
            button = getattr(ui, f"{name}Button")
            button.checked, button.enabled = name == tool, not locked
            button.toolTip = words.tool(name, locked)
        for button in (ui.insideButton, ui.outsideButton):
            button.enabled = tool not in UNSIGNED
            button.toolTip = words.side(button is ui.insideButton, tool in UNSIGNED)
        asked = self._suggestion is not None
        ui.confirmButton.enabled = asked and not locked
        ui.confirmButton.toolTip = words.confirm(self._suggestion.index if asked else None, locked)
        ui.limitsButton.enabled = not locked
        ui.limitsButton.toolTip = words.useLimits(locked)
        ui.qualityLabel.text = words.estimate(self.logic.estimatedDice())
