"""The panel's section of learning: what the learner does, the versions it made, which one is used. Knows the widgets of
InteractiveLearningLearning.ui, not Qt.
"""

from RefSegSlicerLib import plots
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import learning_words as words
from InteractiveLearningSlicerLib import tables

PLOT = "InteractiveLearning.Loss"


class LearningSection:
    """ui: widgets by name; scene: for the plot; newItem: makes a cell of a table from a text (qt.QTableWidgetItem);
    guarded(work): runs it, and tells errors; say(sentence): tells it.

    `watch` says whose learning is shown; nothing is asked while the section is folded or the module is not shown.
    """

    def __init__(self, ui, scene, newItem, guarded, say):
        self.ui, self.scene = ui, scene
        self._newItem, self._say = newItem, say
        self.learning, self._entered, self._chosen, self._chart = None, False, None, None
        buttons = {"rollBackButton": self.onRollBack, "useButton": self.onUse, "plotButton": self.onPlot}
        for name, action in buttons.items():
            getattr(ui, name).connect("clicked(bool)", lambda *_, action=action: guarded(action))
        ui.versionsTable.connect("itemSelectionChanged()", self.onSelected)
        ui.learning.connect("contentsCollapsed(bool)", lambda *_: self._onShown())
        self.update()

    def watch(self, learning, model):
        """Show the learning of a model from now on. learning: LearningLogic, or None; model: its name, or empty."""
        if learning is not self.learning:
            self.learning = learning
            if learning is not None:
                learning.changed.connect(lambda: learning is self.learning and self.update())
        if learning is not None and model != learning.model:
            self._chosen = None
            learning.choose(model)
        self._onShown()
        self.update()

    def enter(self):
        """The module is shown."""
        self._entered = True
        self._onShown()

    def exit(self):
        """The module is not shown any more: nothing is asked, and no plot stays behind."""
        self._entered = False
        self._onShown()
        self._hidePlot()

    def poll(self):
        """Let news in; to be called ten times a second while the module is shown."""
        if self.learning is not None:
            self.learning.poll()

    def close(self):
        """Leave nothing behind. The LearningLogic is its owner's to close."""
        self.exit()
        self.learning = None

    def onRollBack(self):
        """Return to the version that was in use before."""
        wanted = self.learning.state["previous"]
        job = self.learning.rollBack()
        job.finished.connect(lambda active: self._say(words.rolledBack(wanted, active)))
        job.failed.connect(lambda error: self._say(str(error)))
        self.update()

    def onUse(self):
        """Use the version that is selected."""
        job = self.learning.activate(self._chosen)
        job.finished.connect(lambda version: self._say(_("Version {version} is active now.").format(version=version)))
        job.failed.connect(lambda error: self._say(str(error)))
        self.update()

    def onSelected(self):
        """Show all about another version."""
        row = self.ui.versionsTable.currentRow()
        shown = [entry["version"] for entry in self._versions()]
        self._chosen = shown[row] if 0 <= row < len(shown) else None
        self.update()

    def onPlot(self):
        """Show how the loss fell, or show it no more."""
        if self.ui.plotButton.checked:
            self._plot()
            plots.reveal(self._chart)
        else:
            self._hidePlot()

    def update(self):
        """Show what is known, enable what can succeed, and say why the rest cannot."""
        ui, learning = self.ui, self.learning
        known = learning is not None and bool(learning.model)
        state = learning.state if known else {}
        ui.learnerLabel.text = (
            words.learner(state, learning.trouble, learning.starting) if known else _("Choose a model.")
        )
        ui.waitingLabel.text = words.waiting(state)
        ui.waitingLabel.visible = bool(ui.waitingLabel.text)
        done = words.percent(state)
        ui.learnerProgress.visible = done is not None
        ui.learnerProgress.value = done or 0
        versions = self._versions()
        tables.fill(ui.versionsTable, [words.row(entry) for entry in versions], self._newItem)
        numbers = [entry["version"] for entry in versions]
        tables.select(ui.versionsTable, numbers.index(self._chosen) if self._chosen in numbers else None)
        entry = self._entry()
        told = "" if entry is None else words.details(entry)
        if ui.detailsText.plainText != told:
            ui.detailsText.plainText = told
        self._able(ui.rollBackButton, words.notRolledBack(learning), words.rollBack(state))
        self._able(
            ui.useButton, words.notUsed(learning, entry), _("Segment with the version that is selected from now on.")
        )
        curves = words.curves(learning, entry)
        ui.plotButton.enabled = bool(curves)
        ui.plotButton.toolTip = (
            _("Plot the loss of every iteration: of the case at hand, and of the version that is selected.")
            if curves
            else _("Nothing has been learnt yet, so there is no loss to show.")
        )
        if ui.plotButton.checked and (not curves or not self.scene.IsNodePresent(self._chart)):
            self._hidePlot()  # the scene was closed, or another model chosen
        elif ui.plotButton.checked:
            self._plot()

    def _versions(self):
        return self.learning.versions if self.learning is not None else []

    @staticmethod
    def _able(button, reason, toolTip):
        button.enabled, button.toolTip = not reason, reason or toolTip

    def _entry(self):
        """The version that is selected; None if none is."""
        return next((entry for entry in self._versions() if entry["version"] == self._chosen), None)

    def _plot(self):
        curves = words.curves(self.learning, self._entry())
        title = _("Loss while {model} learns").format(model=self.learning.model)
        self._chart = plots.showPlot(self.scene, PLOT, title, _("Iteration"), _("Loss"), curves)

    def _hidePlot(self):
        if self._chart is not None:
            plots.removePlot(self.scene, PLOT)
            self._chart = None
        self.ui.plotButton.checked = False

    def _onShown(self):
        shown = self._entered and not self.ui.learning.collapsed
        if self.learning is not None:
            (self.learning.watched.add if shown else self.learning.watched.discard)("learning")
