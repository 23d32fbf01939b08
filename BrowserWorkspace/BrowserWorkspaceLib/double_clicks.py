"""Double clicks in views: browsers send single clicks alone, and Slicer's markups are finished with double ones."""

import time

SECONDS = 0.5
PIXELS = 6


class DoubleClicks:
    """Tells views of double clicks, as Qt would. wanted(): somebody waits for one; later(work): runs work when the
    event at hand is over."""

    def __init__(self, views, wanted, later):
        self._wanted, self._later = wanted, later
        self._last = None
        for view in views:
            interactor = view.interactor()
            interactor.AddObserver("LeftButtonReleaseEvent", lambda caller, _event: self._on_release(caller))

    def _on_release(self, interactor):
        before, now = self._last, (interactor, interactor.GetEventPosition(), time.monotonic())
        self._last = now
        if before is None or not self._wanted() or before[0] is not interactor or now[2] - before[2] > SECONDS:
            return
        if max(abs(a - b) for a, b in zip(before[1], now[1], strict=True)) <= PIXELS:
            self._last = None
            self._later(lambda: self._tell(interactor))

    @staticmethod
    def _tell(interactor):
        for event in ("LeftButtonDoubleClickEvent", "LeftButtonReleaseEvent"):
            interactor.InvokeEvent(event)
