"""Double clicks in views: they do not travel with the other events of the mouse, and Slicer's markups need them.

The page tells of them. Counted here, from when single clicks arrive, they would be missed while the server is at work.
"""

FIRST = 1000.0


class DoubleClicks:
    """Tells views of double clicks, as Qt would. wanted(): somebody waits for one; later(work): runs work when the
    event at hand is over."""

    def __init__(self, views, wanted, later):
        self._wanted, self._later, self._last = wanted, later, None
        for view in views:
            # Before Slicer's own: what that uses nobody else gets to see.
            view.interactor().AddObserver("LeftButtonReleaseEvent", self._on_release, FIRST)

    def told(self) -> None:
        """The page has seen one: in the view in which the button was released last."""
        interactor = self._last
        if interactor is not None and self._wanted():
            self._later(lambda: self._tell(interactor))

    def _on_release(self, interactor, _event):
        self._last = interactor

    @staticmethod
    def _tell(interactor):
        for event in ("LeftButtonDoubleClickEvent", "LeftButtonReleaseEvent"):
            interactor.InvokeEvent(event)
