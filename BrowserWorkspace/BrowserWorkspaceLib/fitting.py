"""Every slice view shows all of its image until somebody has chosen otherwise.

How large a view is, only the page knows, and it tells when it is there: long after a workspace was restored, and again
while its panels find their places. Fitted once, by the clock, a view is fitted to a size that it does not keep
(measured: the axial view showed a third of the head).
"""

import numpy as np

FIRST = 1000.0
SAME = 1e-3


# Sizes come in a row while a page finds its own.
SOON = 0.05


class Fitting:
    """slicer_app: trame-slicer's; once(key, seconds, work): does work after a while, and only the last of a key, as
    Pump does."""

    def __init__(self, slicer_app, once):
        self._display, self._once = slicer_app.display_manager, once
        # What a view showed when it was fitted last; None: it is about to be fitted again.
        self._fitted = dict.fromkeys(slicer_app.view_manager.get_slice_views())
        for view in self._fitted:
            # Before the view's own: that changes what is shown by itself.
            view.interactor().AddObserver("WindowResizeEvent", lambda *_event, view=view: self._on_resize(view), FIRST)

    def fit(self) -> None:
        """Show all of the image in every view, from now on whatever their sizes become."""
        self._display.reset_views()
        for view in self._fitted:
            self._fitted[view] = _shown(view)

    def _on_resize(self, view):
        known = self._fitted[view]
        if known is not None and not np.allclose(known, _shown(view), rtol=SAME, atol=SAME):
            return  # somebody has looked closer, or elsewhere
        self._fitted[view] = None
        self._once(("fit", id(view)), SOON, lambda: self._again(view))

    def _again(self, view):
        offset = view.get_slice_value()
        view.fit_view_to_content()
        view.set_slice_value(offset)  # the slice that was looked at stays
        self._fitted[view] = _shown(view)


def _shown(view):
    """Width and height of what a view shows, mm, and where its middle lies in its own plane."""
    node = view.get_view_node()
    return (*node.GetFieldOfView()[:2], *node.GetXYZOrigin()[:2])
