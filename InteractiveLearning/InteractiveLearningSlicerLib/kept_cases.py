"""What is kept of accepted cases: it is counted, checked, and a patient is forgotten in two presses."""

import time

from RefSegLib.jobs import Signal
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import learning_words as words

# A confirmation that is not given is none; and the second half of a double click is no confirmation.
CONFIRM_SECONDS = 10.0
HASTE_SECONDS = 0.5


class KeptCases:
    """say(sentence): tells it. Main thread only.

    `watch` says whose cases are meant; nothing is asked while they are not shown. changed(): there is something else
    to show; forgotten(): a patient was, whose name nobody needs any more. `told`: what came of forgetting.
    """

    def __init__(self, say):
        self.changed, self.forgotten = Signal(), Signal()
        self.learning, self.told = None, ""
        self._say, self._shown = say, False
        self._asked = self._checked = None
        self._progress = ""

    @property
    def asked(self):
        """Whether the next press forgets the patient."""
        return self._asked is not None

    @property
    def found(self):
        """What is kept (Client.replay); None while unknown."""
        return self.learning.kept if self.learning is not None and self.learning.model else None

    def watch(self, learning, model):
        """Show what is kept for a model from now on. learning: LearningLogic, or None; model: its name, or empty."""
        self.unask()
        if learning is not self.learning:
            self.learning, self._checked = learning, None
            if learning is not None:
                learning.changed.connect(lambda: learning is self.learning and self.changed())
        if learning is not None and model != learning.model:
            self._checked = None
            learning.choose(model)
        self.show(self._shown)
        self.changed()

    def show(self, shown):
        """Whether somebody sees it: else nothing is asked, and nothing waits to be confirmed."""
        self._shown = shown
        if not shown:
            self.unask()
        if self.learning is not None:
            (self.learning.watched.add if shown else self.learning.watched.discard)("kept")

    def poll(self):
        """Let news in."""
        if self.learning is not None:
            self.learning.poll()
        if self._asked is not None and time.monotonic() - self._asked > CONFIRM_SECONDS:
            self.unask()

    def close(self):
        """Leave nothing behind. The LearningLogic is its owner's to close."""
        self.show(False)
        self.learning, self.told = None, ""

    def check(self):
        """Read every case to its last byte, in the background."""
        self.unask()
        learning, model = self.learning, self.learning.model
        job = learning.check()
        job.progressed.connect(lambda fraction, _message: self._checking(fraction))
        job.finished.connect(lambda found: self._onChecked((learning, model), found))
        job.failed.connect(lambda error: (self._checking(None), self._say(str(error))))
        self._checking(0.0)

    def forget(self, patient):
        """Ask once, then forget the patient."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._tell(
                _("This removes every image and mask of this patient for good, of all models. Press again to confirm.")
            )
            return
        if time.monotonic() - self._asked < HASTE_SECONDS:
            return
        self._asked = None
        learning = self.learning
        job = learning.forget(patient)
        job.finished.connect(lambda result: self._onForgotten(learning, result))
        job.failed.connect(lambda error: self._tell(str(error)))
        self._tell(_("Forgetting..."))

    def typed(self):
        """Another patient is being named: nothing is to be confirmed, and what came of the last one is past."""
        self._asked = None
        self._tell("")

    def unask(self):
        """Nothing is to be confirmed any more."""
        if self._asked is not None:
            self._asked = None
            self._tell("")

    def summary(self):
        """How much is kept, or why that is not known."""
        if self.learning is None or not self.learning.model:
            return _("Choose a model.")
        return words.kept(self.found) if self.found is not None else self.learning.trouble or _("Asking...")

    def rows(self):
        """The same as rows of a table."""
        return [] if self.found is None else words.keptRows(self.found)

    def lost(self):
        """Which cases are damaged, in words; empty if none is known to be."""
        known = [*(self._checked or []), *([] if self.found is None else self.found["lost"])]
        return words.lost(list({one["case"]: one for one in known}.values()))

    def checkText(self):
        """What the button says that checks all cases."""
        return self._progress or _("Check every case")

    def forgetText(self):
        """What the button says that forgets a patient."""
        return _("Forget for good") if self.asked else _("Forget this patient")

    def notChecked(self):
        """Why the cases cannot be read; empty if they can."""
        found = self.found
        if found is None:
            return _("Nothing is known of the cases yet.")
        if not self.learning.may("consent"):
            return words.denied(self.learning.me, _("check the cases"))
        if not found["train"]["cases"] and not found["validation"]["cases"]:
            return _("Nothing is kept for this model yet.")
        return _("Wait until it is done.") if self.learning.acting else ""

    def notForgotten(self, patient):
        """Why nobody can be forgotten; empty if that can be done. patient: the name that was written."""
        if self.learning is None or not self.learning.state:
            return _("Nothing is known of the cases yet.")
        if not self.learning.may("forget"):
            return words.denied(self.learning.me, _("forget patients"))
        if self.learning.acting:
            return _("Wait until it is done.")
        return "" if patient.strip() else _("Write the name or number of the patient.")

    def _checking(self, fraction):
        self._progress = "" if fraction is None else _("Checking: {done} %").format(done=round(100 * fraction))
        self.changed()

    def _onChecked(self, where, found):
        if self.learning is not None and where == (self.learning, self.learning.model):
            self._checked = found
        self._say(words.lost(found) or _("All cases that are kept are whole."))
        self._checking(None)

    def _onForgotten(self, learning, result):
        if result["cases"]:
            self.forgotten()
        self._checked = None
        self._tell(words.forgotten(result, learning.model, learning.active))

    def _tell(self, sentence):
        self.told = sentence
        self.changed()
