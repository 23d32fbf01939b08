"""What is known of a model's learning, and what can be done about it. Nothing here waits: a service is asked in threads
(RefSegLib.jobs), and what it told is known after `poll`.
"""

import threading
import time

from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.jobs import Job, Signal
from RefSegLib.progress import Progress
from RefSegSlicerLib.translation import tr as _

LOOK_SECONDS = 1.0
# Versions and what is kept are asked for when something shows that they have changed, and else this often.
AGAIN_SECONDS = 30.0
RETRY_SECONDS = 15.0
LEAVE_SECONDS = 0.05


class LearningLogic:
    """service: see RefSegSlicerLib.connection.open_service. Main thread only.

    What was told last: `model` that was asked about, `state` (Client.learning), `versions` (Client.versions), `kept`
    (Client.replay, None until somebody has wanted it), `me` (Client.me); `trouble`: why the service cannot be asked,
    `starting`: what is done to reach it, both empty else. changed() when any of these has; failed(RefSegError) when the
    service could not be asked.
    """

    def __init__(self, service):
        self.service, self.home, self.place = service, service.home, service.place
        self.changed, self.failed = Signal(), Signal()
        self.watched = set()  # of "learning" and "kept": what is shown to somebody
        self._look, self._action, self._needed = None, None, False
        self._gate, self._over = threading.Lock(), threading.Event()
        self._forget("")

    @property
    def acting(self):
        """True while something that was asked for is being done."""
        return self._action is not None

    @property
    def active(self):
        """The version in use; None while unknown."""
        return self.state.get("active")

    def may(self, action):
        """Whether the user may do something ("roll back", "publish", "reject", "forget", "consent"); True while
        unknown."""
        return not self.me or action in self.me["may"]

    def choose(self, model):
        """It is about this model from now on (empty: none). It is asked about when somebody wants to know."""
        if model != self.model:
            self._forget(model)
            self.changed()

    def refresh(self, model):
        """Ask about a model, all of it; changed or failed tell when it is known."""
        self.choose(model)
        if self.state or self._look is None:  # else it is being asked for the first time just now
            self._anew()

    def poll(self):
        """Deliver what is known, and ask again if it is time for that and somebody wants to know."""
        for job in (self._look, self._action):
            if job is not None:
                job.poll()
        if (self.watched or self._needed) and self._look is None and time.monotonic() >= self._due:
            self._begin()

    def startLearner(self, model):
        """Have what was accepted learnt: the service is started if it does not run, also if it is killed while there is
        something left to learn and `poll` is called."""
        self.refresh(model)
        self._needed = True

    def learnerRuns(self):
        """True while the service learns, or has cases before it, as far as it has told."""
        return bool(self.state.get("running") or self.state.get("pending"))

    def rollBack(self):
        """Return to the version in use before. The Job's result: the version that is in use then."""
        model, leaving = self.model, self.active
        return self._do(lambda client, progress: client.roll_back(model, leaving))

    def activate(self, version):
        """Use a version from now on. The Job's result: the version."""
        model = self.model
        return self._do(lambda client, progress: client.activate(model, version))

    def review(self, version, accepted, case=None):
        """Say that what a version made of a case (its id) was good enough, or not. The Job's result: Client.review."""
        model = self.model
        return self._do(lambda client, progress: client.review(model, version, accepted, case))

    def forget(self, patient):
        """Remove every trace of a patient. The Job's result: Client.forget."""
        return self._do(lambda client, progress: client.forget(patient))

    def check(self):
        """Read all that is kept for the model. The Job's result: Client.damaged."""
        model = self.model
        return self._do(lambda client, progress: client.damaged(model, progress))

    def close(self):
        """Ask nothing more and leave the service; what it was learning when it ends goes on when it is started again.
        A service that takes its time is left in the background."""
        self._over.set()
        self._look, self._action, self._needed = None, None, False
        self.watched.clear()
        leaving = threading.Thread(target=self._leave, name="leaving", daemon=False)
        leaving.start()
        leaving.join(LEAVE_SECONDS)

    def _leave(self):
        with self._gate:  # nobody is reaching it any more
            self.service.leave()

    def _forget(self, model):
        self.model, self.state, self.versions, self.kept, self.me = model, {}, [], None, {}
        self.trouble = self.starting = ""
        self._needed, self._asked, self._due, self._look = False, {}, 0.0, None

    def _anew(self):
        """Ask for everything. What is being asked just now may be what was before: nobody hears of it."""
        self._look, self._asked = None, {}
        self._begin()

    def _do(self, work):
        """Do what was asked for; afterwards all is asked anew."""
        if self._action is not None:
            raise BadInput(_("Something that was asked for is still being done. Wait until it is over."))

        def over(_result):
            self._action = None
            self._anew()
            self.changed()

        job = self._action = self._job(work)
        job.finished.connect(over)
        job.failed.connect(over)
        return job

    def _begin(self):
        if not self.model or self._over.is_set():
            return
        model, told = self.model, _Told(self.state, self.versions, self.kept, self.me, dict(self._asked))
        kept, local = "kept" in self.watched, self.home is not None
        job = self._look = self._job(lambda client, _progress: told.asked(client, model, kept), local)
        job.progressed.connect(lambda _fraction, message: self._reaching(job, message))
        job.finished.connect(lambda found: self._looked(job, found))
        job.failed.connect(lambda error: self._notLooked(job, error))

    def _job(self, work, local=False):
        """Work with a client, in a thread. local: a service that ends while it is asked is no error; the result is None
        then, and whoever asks again starts it."""

        def run(report, cancelled):
            progress = Progress(report, lambda: cancelled() or self._over.is_set())
            with self._gate:
                if progress.cancelled():
                    raise Cancelled
                client = self.service.client(progress)
            from InteractiveLearningLib.service.failures import Unreachable

            try:
                return work(client, progress)
            except Unreachable:
                if not local:
                    raise

        return Job(run)

    def _reaching(self, job, message):
        if job is self._look and not self.state and message != self.starting:
            self.starting = message
            self.changed()

    def _looked(self, job, found):
        if job is not self._look:
            return
        self._look, self._due = None, time.monotonic() + LOOK_SECONDS
        if found is None:
            return
        before = self.state, self.versions, self.kept, self.me, self.trouble, self.starting
        self.state, self.versions, self.kept, self.me = found.state, found.versions, found.kept, found.me
        self._asked = found.when
        self._needed = self._needed and self.learnerRuns()
        self.trouble = self.starting = ""
        if before != (self.state, self.versions, self.kept, self.me, "", ""):
            self.changed()

    def _notLooked(self, job, error):
        if job is not self._look:
            return
        self._look, self._due = None, time.monotonic() + RETRY_SECONDS
        if not isinstance(error, Cancelled):
            self.trouble, self.starting = str(error), ""
            self.changed()
            self.failed(error)


class _Told:
    """What a service has told; when: at what time, and for what state, each part was asked for. For one thread."""

    def __init__(self, state, versions, kept, me, when):
        self.state, self.versions, self.kept, self.me, self.when = state, versions, kept, me, when

    def asked(self, client, model, kept):
        """Ask for what may have changed."""
        self.state = state = client.learning(model)
        verdicts = state["verdicts"]
        made = [state[key] for key in ("active", "previous", "newest")] + [len(verdicts), *verdicts[-1:]]
        if self._old("me", None):
            self.me = client.me()
        if self._old("versions", made):
            self.versions = client.versions(model)
        if kept and self._old("kept", [state[key] for key in ("cases", "pending", "missing")]):
            self.kept = client.replay(model)
        return self

    def _old(self, part, now):
        since, before = self.when.get(part, (0.0, None))
        old = before != now or time.monotonic() - since > AGAIN_SECONDS
        if old:
            self.when[part] = time.monotonic(), now
        return old
