"""Working through a worklist: cases are opened and decided, models hear of it, and what cannot be done says why."""

from RefSegLib.jobs import Signal
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import case_words
from InteractiveLearningSlicerLib.cases import ACCEPTED, REJECTED, SKIPPED
from InteractiveLearningSlicerLib.reviews import Reviews
from InteractiveLearningSlicerLib.worklist import Worklist


class CaseWork:
    """The Worklist that a front end has chosen (`worklist`, None without one) and what people do with it.

    openService: gives a service of its own (see connection.open_service), which is told what people think of masks;
    opened(volumeNode, case): a case is there; leaving() -> str: why the open case cannot be left now, "" if it can;
    guarded(work): runs work and tells its errors; say(sentence): tells it; kept() -> bool: see Worklist.

    changed(): there is something else to show; `message` and `percent`: of what is being done.
    """

    def __init__(self, scene, openService, opened, leaving, guarded, say, kept=lambda: False):
        self.scene, self.changed = scene, Signal()
        self.worklist, self.message, self.percent = None, "", 0
        self._opened, self._leaving, self._guarded, self._say, self._kept = opened, leaving, guarded, say, kept
        self._reviews = Reviews(openService, say)

    @property
    def cases(self):
        """All cases that are known."""
        return [] if self.worklist is None else self.worklist.cases

    @property
    def present(self):
        """The case that is open; None if none is."""
        return None if self.worklist is None or self.worklist.node is None else self.worklist.present

    @property
    def opening(self):
        """Whether a case is being opened."""
        return self.worklist is not None and self.worklist.opening

    @property
    def telling(self):
        """Whether models are still being told what was decided."""
        return self._reviews.busy

    def begin(self, source):
        """Work on the cases of a source (cases.py) from now on."""
        self.drop()
        self.worklist = Worklist(self.scene, source, self._leaving, self._kept)
        self.worklist.changed.connect(self.changed)
        self.worklist.progressed.connect(self._onProgress)
        self.worklist.failed.connect(self._onFailed)
        self.worklist.opened.connect(self._onOpened)
        self.worklist.refresh()

    def drop(self):
        """Work on no cases any more."""
        if self.worklist is not None:
            self.worklist.close()
        self.worklist = None

    def poll(self):
        """Deliver what has happened, in the main thread."""
        self._reviews.poll()
        if self.worklist is not None:
            self.worklist.poll()

    def close(self):
        """Leave nothing running; the list goes on where it was."""
        self._reviews.close()
        self.drop()

    def do(self, action):
        """Run an action of the person; its errors are told."""
        self.message = ""
        self._guarded(action)
        self.changed()

    def open(self, row):
        """Open the case of this number in the list."""
        self.worklist.open(self.cases[row])

    def next(self):
        """Open the next case about which nothing was decided."""
        self.worklist.next()

    def cancel(self):
        """Stop opening a case, and looking up cases."""
        self.worklist.cancel()

    def accepted(self, go):
        """The open case is in the store: the model that made its mask is told. go: open the next case.

        Without an open case of the list nothing happens.
        """
        if self.present is not None:
            self.do(lambda: self._decide(ACCEPTED, go))

    def skip(self):
        """Decide about this case another time, and open the next one."""
        self._decide(SKIPPED, go=True)

    def reject(self):
        """This case cannot be used; the model that made its mask is told. Opens the next one."""
        self._decide(REJECTED, go=True)

    def texts(self):
        """The cases as a list shows them."""
        present = self.present
        return [case_words.case(case, present is not None and case.key == present.key) for case in self.cases]

    def reasons(self, missing, row):
        """Why each button (see case_words.hints) cannot be used, empty if it can. missing: why there is no list, ""
        if there is one; row: number of the case that is selected."""
        cases, opening = self.cases, self.opening
        busy = "" if self.worklist is None else self.worklist.unkept
        if opening:
            busy = _("A case is being opened. Wait for it, or press Cancel.")
        selected = cases[row] if 0 <= row < len(cases) else None
        unselected = "" if selected else _("Select a case in the list.")
        theirs = _("{person} works on this case.").format(person=selected.other) if selected and selected.other else ""
        none = "" if self.present is not None else _("Open a case of the list first.")
        done = "" if cases and self.worklist.waiting() else _("Nothing is left to do: every case has been decided.")
        return {
            "refreshButton": missing,
            "openButton": missing or busy or unselected or theirs,
            "nextCaseButton": missing or busy or done,
            "skipButton": missing or busy or none,
            "rejectButton": missing or busy or none,
            "cancelLoadingButton": "" if opening else _("No case is being opened."),
        }

    def status(self, missing):
        """What is to be known of the list. missing: why there is none, "" if there is one."""
        if missing or self.worklist is None:
            return missing
        if self.worklist.unkept or self.worklist.waitsFor:
            return self.worklist.unkept or self.worklist.waitsFor
        if self.message:
            return self.message
        if not self.cases:
            return _("Looking for cases...") if self.worklist.listing else _("There are no cases here.")
        return case_words.progress(self.cases, self.present)

    def _decide(self, state, go):
        reason = self._leaving() if state != ACCEPTED else ""
        if reason:
            self._say(reason)
            return
        if state == ACCEPTED:
            # It is in the store, whatever the list says.
            self._reviews.tell(self.worklist.segmentations(), accepted=True)
        self.worklist.decide(state, lambda: self.do(lambda: self._decided(state, go)))

    def _decided(self, state, go):
        """The source has kept what was decided; had it refused, the case would stay open."""
        if state == REJECTED:
            self._reviews.tell(self.worklist.segmentations(), accepted=False)
        if go and self.worklist.waiting():
            self.worklist.next()
        elif go:
            self._say(_("That was the last case: every case has been decided."))

    def _onProgress(self, fraction, message):
        self.message, self.percent = message, round(100 * fraction)
        self.changed()

    def _onFailed(self, error):
        self.message = ""
        self._say(str(error))

    def _onOpened(self, volumeNode, case):
        self.message = ""
        self._guarded(lambda: self._opened(volumeNode, case))
        self.changed()
