"""The panel's section of kept cases: how many, of what, which are damaged; a patient is forgotten. Knows the widgets of
InteractiveLearningReplay.ui, not Qt.
"""

from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import tables
from InteractiveLearningSlicerLib.kept_cases import KeptCases


class ReplaySection:
    """ui: widgets by name; newItem: makes a cell of a table from a text (qt.QTableWidgetItem); guarded(work): runs it,
    and tells errors; say(sentence): tells it.

    `watch` says whose cases are shown; nothing is asked while the section is folded or the module is not shown.
    """

    def __init__(self, ui, newItem, guarded, say):
        self.ui, self._newItem, self._entered = ui, newItem, False
        self.kept = KeptCases(say)
        self.kept.changed.connect(self.update)
        self.kept.forgotten.connect(self._onForgotten)
        for name, action in (
            ("checkButton", self.kept.check),
            ("forgetButton", lambda: self.kept.forget(ui.forgetEdit.text)),
        ):
            getattr(ui, name).connect("clicked(bool)", lambda *_, action=action: guarded(action))
        ui.forgetEdit.connect("textChanged(QString)", lambda *_: self._onTyped())
        ui.replay.connect("contentsCollapsed(bool)", lambda *_: self._onShown())
        self.update()

    def watch(self, learning, model):
        """Show what is kept for a model from now on. learning: LearningLogic, or None; model: its name, or empty."""
        self.kept.watch(learning, model)

    def enter(self):
        """The module is shown."""
        self._entered = True
        self._onShown()

    def exit(self):
        """The module is not shown any more: nothing is asked, and nothing waits to be confirmed."""
        self._entered = False
        self._onShown()

    def poll(self):
        """Let news in; to be called ten times a second while the module is shown."""
        self.kept.poll()

    def close(self):
        """Leave nothing behind: no name of a patient in the panel either. The LearningLogic is its owner's to close."""
        self.exit()
        self.kept.close()
        self.ui.forgetEdit.text = ""
        self.update()

    def update(self):
        """Show what is known, enable what can succeed, and say why the rest cannot."""
        ui, kept = self.ui, self.kept
        ui.keptLabel.text = kept.summary()
        tables.fill(ui.keptTable, kept.rows(), self._newItem)
        ui.damagedLabel.text = kept.lost()
        ui.damagedLabel.visible = bool(ui.damagedLabel.text)
        ui.checkButton.text, ui.forgetButton.text = kept.checkText(), kept.forgetText()
        for name, reason, does in (
            (
                "checkButton",
                kept.notChecked(),
                _("Read every case that is kept to its last byte. Missing files are found without this."),
            ),
            (
                "forgetButton",
                kept.notForgotten(ui.forgetEdit.text),
                _("Remove every image and mask of this patient, of all models."),
            ),
        ):
            button = getattr(ui, name)
            button.enabled, button.toolTip = not reason, reason or does
        ui.forgetLabel.text = kept.told
        ui.forgetLabel.visible = bool(kept.told)

    def _onForgotten(self):
        self.ui.forgetEdit.blockSignals(True)  # what came of it stays to be read
        self.ui.forgetEdit.text = ""
        self.ui.forgetEdit.blockSignals(False)

    def _onTyped(self):
        self.kept.typed() if self.ui.forgetEdit.text else self.kept.unask()
        self.update()

    def _onShown(self):
        self.kept.show(self._entered and not self.ui.replay.collapsed)
