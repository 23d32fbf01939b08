"""The panel's section of kept cases: how many, of what, which are damaged; a patient is forgotten. Knows the widgets of
InteractiveLearningReplay.ui, not Qt.
"""

import time

from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import learning_words as words
from InteractiveLearningSlicerLib import tables

# A confirmation that is not given is none; and the second half of a double click is no confirmation.
CONFIRM_SECONDS = 10.0
HASTE_SECONDS = 0.5


class ReplaySection:
    """ui: widgets by name; newItem: makes a cell of a table from a text (qt.QTableWidgetItem); guarded(work): runs it,
    and tells errors; say(sentence): tells it.

    `watch` says whose cases are shown; nothing is asked while the section is folded or the module is not shown.
    """

    def __init__(self, ui, newItem, guarded, say):
        self.ui, self._newItem, self._say = ui, newItem, say
        self.learning, self._entered, self._asked, self._checked = None, False, None, None
        self._progress = ""
        for name, action in (("checkButton", self.onCheck), ("forgetButton", self.onForget)):
            getattr(ui, name).connect("clicked(bool)", lambda *_, action=action: guarded(action))
        ui.forgetEdit.connect("textChanged(QString)", lambda *_: self._onTyped())
        ui.replay.connect("contentsCollapsed(bool)", lambda *_: self._onShown())
        self.update()

    def watch(self, learning, model):
        """Show what is kept for a model from now on. learning: LearningLogic, or None; model: its name, or empty."""
        self._unask()
        if learning is not self.learning:
            self.learning, self._checked = learning, None
            if learning is not None:
                learning.changed.connect(lambda: learning is self.learning and self.update())
        if learning is not None and model != learning.model:
            self._checked = None
            learning.choose(model)
        self._onShown()
        self.update()

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
        if self.learning is not None:
            self.learning.poll()
        if self._asked is not None and time.monotonic() - self._asked > CONFIRM_SECONDS:
            self._unask()

    def close(self):
        """Leave nothing behind: no name of a patient in the panel either. The LearningLogic is its owner's to close."""
        self.exit()
        self.ui.forgetEdit.text = self.ui.forgetLabel.text = ""
        self.learning = None

    def onCheck(self):
        """Read every case."""
        self._unask()
        learning, model = self.learning, self.learning.model
        job = learning.check()
        job.progressed.connect(lambda fraction, _message: self._checking(fraction))
        job.finished.connect(lambda found: self._onChecked((learning, model), found))
        job.failed.connect(lambda error: (self._checking(None), self._say(str(error))))
        self._checking(0.0)

    def _checking(self, fraction):
        self._progress = "" if fraction is None else _("Checking: {done} %").format(done=round(100 * fraction))
        self.update()

    def _onChecked(self, where, found):
        if self.learning is not None and where == (self.learning, self.learning.model):
            self._checked = found
        self._say(words.lost(found) or _("All cases that are kept are whole."))
        self._checking(None)

    def onForget(self):
        """Ask once, then forget the patient."""
        if self._asked is None:
            self._asked = time.monotonic()
            self.ui.forgetLabel.text = _(
                "This removes every image and mask of this patient for good, of all models. Press again to confirm."
            )
            self.update()
            return
        if time.monotonic() - self._asked < HASTE_SECONDS:
            return
        self._asked = None
        learning = self.learning
        job = learning.forget(self.ui.forgetEdit.text)
        job.finished.connect(lambda result: self._onForgotten(learning, result))
        job.failed.connect(lambda error: self._tell(str(error)))
        self.ui.forgetLabel.text = _("Forgetting...")
        self.update()

    def _onForgotten(self, learning, result):
        self.ui.forgetEdit.blockSignals(True)  # what came of it stays to be read
        if result["cases"]:
            self.ui.forgetEdit.text = ""
        self.ui.forgetEdit.blockSignals(False)
        self._checked = None
        self._tell(words.forgotten(result, learning.model, learning.active))

    def _tell(self, sentence):
        self.ui.forgetLabel.text = sentence
        self.update()

    def update(self):
        """Show what is known, enable what can succeed, and say why the rest cannot."""
        ui, learning = self.ui, self.learning
        known = learning is not None and bool(learning.model)
        found = learning.kept if known else None
        if found is None:
            ui.keptLabel.text = (learning.trouble or _("Asking...")) if known else _("Choose a model.")
        else:
            ui.keptLabel.text = words.kept(found)
        tables.fill(ui.keptTable, [] if found is None else words.keptRows(found), self._newItem)
        lost = {one["case"]: one for one in [*(self._checked or []), *([] if found is None else found["lost"])]}
        ui.damagedLabel.text = words.lost(list(lost.values()))
        ui.damagedLabel.visible = bool(lost)
        reason = self._notChecked(found)
        ui.checkButton.text = self._progress or _("Check every case")
        ui.checkButton.enabled = not reason
        ui.checkButton.toolTip = reason or _(
            "Read every case that is kept to its last byte. Missing files are found without this."
        )
        reason = self._notForgotten()
        ui.forgetButton.enabled = not reason
        ui.forgetButton.text = _("Forget for good") if self._asked is not None else _("Forget this patient")
        ui.forgetButton.toolTip = reason or _("Remove every image and mask of this patient, of all models.")
        ui.forgetLabel.visible = bool(ui.forgetLabel.text)

    def _notChecked(self, found):
        """Why the cases cannot be read; empty if they can."""
        if found is None:
            return _("Nothing is known of the cases yet.")
        if not self.learning.may("consent"):
            return words.denied(self.learning.me, _("check the cases"))
        if not found["train"]["cases"] and not found["validation"]["cases"]:
            return _("Nothing is kept for this model yet.")
        return _("Wait until it is done.") if self.learning.acting else ""

    def _notForgotten(self):
        """Why nobody can be forgotten; empty if that can be done."""
        if self.learning is None or not self.learning.state:
            return _("Nothing is known of the cases yet.")
        if not self.learning.may("forget"):
            return words.denied(self.learning.me, _("forget patients"))
        if self.learning.acting:
            return _("Wait until it is done.")
        return "" if self.ui.forgetEdit.text.strip() else _("Write the name or number of the patient.")

    def _onTyped(self):
        self._unask()
        if self.ui.forgetEdit.text:
            self.ui.forgetLabel.text = ""  # what came of the last one
        self.update()

    def _unask(self):
        if self._asked is not None:
            self._asked = None
            self._tell("")

    def _onShown(self):
        shown = self._entered and not self.ui.replay.collapsed
        self._unask() if not shown else None
        if self.learning is not None:
            (self.learning.watched.add if shown else self.learning.watched.discard)("kept")
