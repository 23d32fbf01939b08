"""Case after case: which one is open, what was decided about the others, and what of them leaves the scene again."""

import time
from dataclasses import replace

from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.jobs import Job, Signal
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib import leaving
from InteractiveLearningSlicerLib.cases import ACCEPTED, REJECTED, TODO, inThread
from InteractiveLearningSlicerLib.volumes import volumeToNode

RENEW_SECONDS = 300.0  # a server keeps a case for six times as long


class Worklist:
    """The cases of one source (see cases.py) in a scene. Main thread only; whatever is slow runs in Jobs.

    changed(): other cases, states or work; progressed(fraction, message) and failed(error) of the work;
    opened(volumeNode, case): its volume is in the scene. leaving() -> str: why the open case cannot be left now, "" if
    it can. kept() -> bool: everything that was drawn on the open case is kept elsewhere, so its segments may go.
    """

    def __init__(self, scene, source, leaving=lambda: "", kept=lambda: False):
        self.scene, self.source = scene, source
        self.changed, self.progressed, self.failed, self.opened = Signal(), Signal(), Signal(), Signal()
        self.cases, self.present = [], None
        self._leaving, self._kept = leaving, kept
        self._listing = self._opening = self._arrived = None
        self._telling, self._again, self._closed = [], False, False
        self._deciding = False  # until the source has kept, or refused, what was decided about the open case
        self._loaded = {}  # key -> id of the volume node that this list has brought into the scene
        self._tried, self._since, self._held = None, 0.0, False  # held: the source keeps the open case from others

    @property
    def node(self):
        """The volume node of the open case; None if there is none, or it has been removed."""
        if self.present is None:
            return None
        identifier = self.present.key if self.source.inScene else self._loaded.get(self.present.key, "")
        return self.scene.GetNodeByID(identifier)

    @property
    def volumes(self):
        """The volume nodes that this list has brought into the scene and that are still there."""
        return list(filter(None, map(self.scene.GetNodeByID, self._loaded.values())))

    @property
    def listing(self):
        """Whether the cases are being looked up."""
        return self._listing is not None

    @property
    def opening(self):
        """Whether a case is being opened."""
        return self._opening is not None or self._arrived is not None

    @property
    def waitsFor(self):
        """Why a case that has been read cannot be shown yet; "" if that is not so."""
        return self._leaving() if self._arrived is not None else ""

    @property
    def unkept(self):
        """Why the open case stays although something was decided about it; "" if that is not so."""
        return _("What was decided about this case is being kept. Wait for it.") if self._deciding else ""

    def refresh(self):
        """Look up the cases again."""
        if self.source.inScene:
            self._take(self.source.cases(None))
        elif self._listing is None:
            self._listing = Job(inThread(self.source.cases))
            self._listing.finished.connect(self._take)
            self._listing.failed.connect(self._notListed)
        else:
            self._again = True
        self.changed()

    def open(self, case):
        """Open a case. Raises BadInput with the reason if the open one cannot be left, or another person has this."""
        if case.other:
            raise BadInput(_("{person} works on this case.").format(person=case.other))
        self._open([case])

    def goOn(self, case, volumeNode):
        """Go on with a case that an earlier list had opened, and whose volume is in the scene (again)."""
        self._tried, self._loaded[case.key] = case.key, volumeNode.GetID()
        self.present, self._held = case, self.source.leased
        self._since = -float("inf")  # it is taken again by the next poll
        self.changed()

    def next(self):
        """Open the next case about which nothing was decided. Raises BadInput if there is none, or as `open` does."""
        waiting = self.waiting()
        if not waiting:
            raise BadInput(_("Nothing is left to do: every case has been decided, or somebody else works on it."))
        self._open(waiting)

    def waiting(self):
        """The cases about which nothing was decided and nobody else has, from behind the one that was opened last."""
        keys = [case.key for case in self.cases]
        start = keys.index(self._tried) + 1 if self._tried in keys else 0
        inTurn = self.cases[start:] + self.cases[:start]
        present = None if self.present is None else self.present.key
        return [case for case in inTurn if case.state == TODO and not case.other and case.key != present]

    def decide(self, state, then=lambda: None):
        """What becomes of the open case: accepted, rejected or skipped. It stays open until another one is opened.

        then(): the source has kept it, which it may refuse to; no other case can be opened before. Raises BadInput
        while that is so.
        """
        if self._deciding:
            raise BadInput(self.unkept)
        case, before = self.present, self.present.state
        if self.source.inScene:
            self._setState(case.key, state)
            self.source.mark(case, state, None)
            then()
            return
        self._held, self._deciding = False, True  # who has decided has let go of it

        def kept():
            self._deciding = False
            self.changed()
            if self.present is not None:
                then()

        self._setState(case.key, state)
        self._tell(lambda progress: self.source.mark(case, state, progress), lambda: self._takeBack(case, before), kept)

    def segmentations(self):
        """The segmentations on the voxels of the open case."""
        return [] if self.node is None else leaving.segmentationsOf(self.node)

    def cancel(self):
        """Stop opening a case, and looking up cases."""
        for job in (self._opening, self._listing):
            if job is not None:
                job.cancel()
        if self._arrived is not None:
            self._release(self._arrived[0])
            self._arrived = None
            self.changed()

    def poll(self):
        """Deliver what has happened since the last call. Never waits."""
        for job in (self._listing, self._opening, *self._telling):
            if job is not None:
                job.poll()
        if self._arrived is not None and not self._leaving():
            found, self._arrived = self._arrived, None
            self._show(*found)
        if self.present is not None and self.node is None:  # the scene was closed, or somebody removed it
            self._gone()
        if self._held and time.monotonic() - self._since > RENEW_SECONDS:
            self._since, case = time.monotonic(), self.present
            self._tell(lambda progress: self.source.renew(case, progress))

    def close(self):
        """Nothing more will be asked for. What was decided is told to its end; the open case is left to others."""
        self.cancel()
        if self.source.leased:
            case = self.present if self._held else None
            self._tell(lambda progress: self.source.close(case, progress))
        self._listing = self._opening = self.present = None
        self._held, self._closed = False, True

    def _open(self, cases):
        reason = self.unkept or self._leaving()
        if reason:
            raise BadInput(reason)
        if self.opening:
            raise BadInput(_("Another case is being opened. Wait for it, or press Cancel."))
        self._tried = cases[0].key
        if self.source.inScene:
            self._show(cases[0], None)
            return
        known = {key for key, identifier in self._loaded.items() if self.scene.GetNodeByID(identifier) is not None}
        self._opening = Job(inThread(self.source.load, cases, known))
        self._opening.progressed.connect(self.progressed)
        self._opening.finished.connect(self._arrive)
        self._opening.failed.connect(self._notOpened)
        self.changed()

    def _arrive(self, found):
        """A case has been read: it is shown as soon as the one before can be left."""
        self._opening, self._arrived, self._tried = None, found, found[0].key
        self.changed()

    def _notOpened(self, error):
        self._opening = None
        if self.source.leased:
            self.refresh()  # somebody else may have it by now
        self._fail(error)

    def _show(self, case, image):
        if self.present is not None and self.present.key != case.key:
            self._leave()
        if image is not None:
            self._loaded[case.key] = volumeToNode(image, self.scene, case.name).GetID()
        self.present, self._since, self._held = case, time.monotonic(), self.source.leased
        if self.node is None:  # it was removed while it was opened
            self._gone()
            self._fail(BadInput(_("The volume of this case is not there any more. Press Refresh.")))
            return
        self.changed()
        self.opened(self.node, case)

    def _leave(self):
        """Take what this list brought for the open case out of the scene, unless something unsaved would be lost."""
        if self._held:
            self._release(self.present)
        if self.source.inScene or self.node is None:
            return
        # What was accepted is in the store by now, what was rejected is not wanted.
        if leaving.takeOut(self.node, self.present.state in (ACCEPTED, REJECTED) or self._kept()):
            del self._loaded[self.present.key]

    def _gone(self):
        """The volume of the open case has left the scene."""
        if self._held:
            self._release(self.present)
        self._loaded.pop(self.present.key, None)
        self.present, self._held = None, False
        self.changed()

    def _release(self, case):
        """Let others have a case that nothing was decided about."""
        if self.source.leased:
            self._tell(lambda progress: self.source.leave(case, progress))

    def _tell(self, work, failed=lambda: None, done=lambda: None):
        """Let the source know something. Errors are told, after `failed` was called."""
        job = Job(inThread(work))

        def over(error=None):
            self._telling.remove(job)
            if error is None:
                done()
            else:
                failed()
                self._fail(error)
            if self.source.leased and not self._telling and not self._closed:
                self.refresh()

        job.finished.connect(lambda _done: over())
        job.failed.connect(over)
        self._telling.append(job)

    def _takeBack(self, case, state):
        """What was decided could not be kept."""
        self._deciding = False
        self._setState(case.key, state)
        self._held = self.source.leased and self.present is not None and self.present.key == case.key

    def _fail(self, error):
        if not isinstance(error, Cancelled):
            self.failed(error)
        self.changed()

    def _notListed(self, error):
        self._listing, self._again = None, False
        self._fail(error)

    def _take(self, cases):
        """Cases have been looked up. What is being decided just now is known better here."""
        self._listing = None
        if self._telling:
            states = {case.key: case.state for case in self.cases}
            cases = [replace(case, state=states.get(case.key, case.state)) for case in cases]
        self.cases = cases
        if self._again:
            self._again = False
            self.refresh()
        self.changed()

    def _setState(self, key, state):
        self.cases = [replace(case, state=state) if case.key == key else case for case in self.cases]
        if self.present is not None and self.present.key == key:
            self.present = replace(self.present, state=state)
        self.changed()
