"""One thing after another: each reads the scene, thinks in a thread of its own, and writes the scene.

A turn is a generator. It runs in the main thread, the only one that may touch nodes, and yields functions that do not:
they run in the thread, and their result, or what they raise, comes back where they were yielded. So a click is read
like one function, though nobody waits for its mask.
"""

import queue
import threading
from collections import deque

from RefSegLib.errors import RefSegError
from RefSegLib.jobs import Signal
from RefSegLib.progress import SILENT, Progress
from RefSegSlicerLib.translation import tr as _


class AtOnce:
    """For scripts: every turn is over when `take` returns, with its value; what it raises is raised. Has no thread."""

    busy = waiting = stopped = False
    progress, told = SILENT, (0.0, "")

    def __init__(self):
        self.began = Signal()

    def take(self, turn, then=None):
        """Do it now; then: called with its value. Returns the value."""
        answer = _Answer()
        while True:
            try:
                work = answer.into(turn)
            except StopIteration as end:
                if then is not None:
                    then(end.value)
                return end.value
            answer = _Answer.of(work)

    def aside(self, work):
        """Do work that no turn waits for."""
        work()

    def drop(self):
        """Forget all turns; there are none."""

    def close(self):
        """End; nothing has to."""


class Turns:
    """For panels: turns think in one thread, and go on when `poll` is called in the main thread.

    began(): a turn waits for the thread, so poll until it is not `busy`. failed: called with the RefSegError that a
    turn has raised. stopped: somebody wants the turn at hand to come to nothing; turns see to that themselves. told:
    (fraction, sentence) that the thread has reported last to `progress`.
    """

    def __init__(self, failed):
        self.began, self._failed = Signal(), failed
        self.stopped, self.told = False, (0.0, "")
        self.progress = Progress(self._tell, lambda: self.stopped)
        self._waiting, self._turn, self._then = deque(), None, None
        self._work, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
        self._thread = None

    @property
    def busy(self):
        """True while a turn is under way."""
        return self._turn is not None

    @property
    def waiting(self):
        """True while others wait for the turn at hand."""
        return bool(self._waiting)

    def take(self, turn, then=None):
        """Do it when those before it are over; then: called with its value."""
        self._waiting.append((turn, then))
        if not self.busy:
            self._next()

    def aside(self, work):
        """Do work in the thread that no turn waits for, after what it is at."""
        self._think(None, work)

    def poll(self):
        """Go on with the turn whose thinking is over. Never waits."""
        while True:
            try:
                turn, answer = self._answers.get_nowait()
            except queue.Empty:
                return
            if turn is not None and turn is self._turn:
                self._step(answer)
                self._next()

    def stop(self):
        """Let the turn at hand come to nothing, as soon as it can."""
        self.stopped = self.busy

    def drop(self):
        """Forget all turns; what the thread is at runs to its end, and nobody hears of it."""
        turns = [self._turn, *(turn for turn, _then in self._waiting)]
        self._waiting.clear()
        self._turn = self._then = None
        self.stopped = True  # what the thread is at ends sooner
        for turn in turns:
            if turn is not None and not turn.gi_running:  # one that drops itself comes to its end
                turn.close()

    def close(self):
        """Forget all turns, and end the thread when it is through with what it has."""
        self.drop()
        if self._thread is not None:
            self._work.put(None)
            self._thread = None

    def _next(self):
        while self._turn is None and self._waiting:
            self._turn, self._then = self._waiting.popleft()
            self.stopped, self.told = False, (0.0, "")
            self._step(_Answer())

    def _step(self, answer):
        """Let the turn at hand run until it has something to think about, or is over."""
        turn, then = self._turn, self._then
        try:
            work = answer.into(turn)
        except StopIteration as end:
            self._over(turn)
            if then is not None:
                then(end.value)
        except RefSegError as error:
            self._over(turn)
            self._failed(error)
        except Exception as error:
            self._over(turn)
            text = _("This did not work, by a fault of the program ({error}). Nothing else changed.")
            self._failed(RefSegError(text.format(error=error)))
            raise  # into the application's log
        else:
            if turn is self._turn:  # else it was dropped by what it did itself
                self._think(turn, work)
                self.began()

    def _over(self, turn):
        if turn is self._turn:
            self._turn = self._then = None

    def _tell(self, fraction, sentence):
        self.told = fraction, sentence

    def _think(self, turn, work):
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._work,), name="session", daemon=True)
            self._thread.start()
        self._work.put((turn, work))

    def _run(self, work):
        while (item := work.get()) is not None:
            self._answers.put((item[0], _Answer.of(item[1])))


class _Answer:
    """What a function gave or raised."""

    def __init__(self, value=None, error=None):
        self._value, self._error = value, error

    @classmethod
    def of(cls, work):
        try:
            return cls(work())
        except Exception as error:
            return cls(error=error)

    def into(self, turn):
        """Hand it to a turn; returns the next function to think about."""
        return turn.send(self._value) if self._error is None else turn.throw(self._error)
