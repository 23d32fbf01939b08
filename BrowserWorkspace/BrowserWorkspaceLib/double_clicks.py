"""Double clicks in views: they do not travel with the other events of the mouse, and Slicer's markups need them.

How fast somebody clicks cannot be told here: the page lets events wait while the server is at work. But of a line, a
second click on the same point can mean nothing else.
"""

PIXELS = 4
FIRST = 1000.0


class DoubleClicks:
    """Tells views of double clicks, as Qt would. wanted(): somebody draws a line; later(work): runs work when the
    event at hand is over."""

    def __init__(self, views, wanted, later):
        self._wanted, self._later, self._last = wanted, later, None
        for view in views:
            # Before Slicer's own: what that uses nobody else gets to see.
            view.interactor().AddObserver("LeftButtonReleaseEvent", self._on_release, FIRST)

    def forget(self) -> None:
        """Another line begins."""
        self._last = None

    def _on_release(self, interactor, _event):
        before, now = self._last, (interactor, interactor.GetEventPosition())
        self._last = now if self._wanted() else None
        if before is None or self._last is None or before[0] is not interactor:
            return
        if max(abs(a - b) for a, b in zip(before[1], now[1], strict=True)) <= PIXELS:
            self._last = None
            self._later(lambda: self._tell(interactor))

    @staticmethod
    def _tell(interactor):
        for event in ("LeftButtonDoubleClickEvent", "LeftButtonReleaseEvent"):
            interactor.InvokeEvent(event)
