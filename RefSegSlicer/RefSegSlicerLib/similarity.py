"""What reflection saw, as a plot: how well the image that each candidate mask implies agrees with the real one."""

from RefSegSlicerLib import plots, words
from RefSegSlicerLib.translation import tr as _

KEY = "similarity"


def showSimilarity(scene, done):
    """Plot what reflection saw of a result; done: what provenance.stamped tells of it. Returns the chart node."""
    curves = seriesOf(done)
    return plots.showPlot(
        scene,
        KEY,
        _("Agreement with the image"),
        _("Candidate (0: the first mask), then rounds of adjusting"),
        _("Similarity"),
        curves,
        points=[name for name in curves if len(curves[name]) == 3],
    )


def seriesOf(done):
    """name -> (x, y, labels) of the candidates of each region, and (x, y) of its rounds of adjusting; empty if nothing
    was reflected on. done: as of provenance, or None."""
    curves = {}
    for region in ((done or {}).get("found") or {}).get("regions", ()):
        told = region["reflection"] or {}
        judged = [c for c in told.get("candidates", ()) if c.get("similarity") is not None]
        if judged:
            side = words.side(region["side"])
            names = [words.candidate(candidate["name"]) for candidate in judged]
            curves[side] = list(range(len(judged))), [c["similarity"] for c in judged], names
            trace = told.get("trace") or ()
            if trace:
                name = _("{side}, adjusting").format(side=side)
                curves[name] = [len(judged) + step for step in range(len(trace))], list(trace)
    return curves
