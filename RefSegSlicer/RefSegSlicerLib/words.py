"""What a segmentation found, in words for the panel."""

from RefSegLib.jobs import POOR, estimates_of
from slicer.i18n import tr as _


def summary(report) -> str:
    """Milliliters and quality of every structure, and what reflection decided; a line each.

    report: what `refseg segment --report` writes.
    """
    lines = []
    for image in report.get("images", ()):
        estimates = {estimate.name: estimate for estimate in estimates_of(image)}
        for label in image["labels"]:
            amount = _("{milliliters} ml").format(milliliters=f"{label['milliliters']:.2f}")
            found = [quality(estimates[label["name"]])] if label["name"] in estimates else []
            lines.append(f"{label['name']}: {', '.join([*found, amount])}")
        sides = {"left": _("Left"), "right": _("Right"), None: _("Reflection")}
        lines += [f"{sides[region['side']]}: {region['said']}" for region in image["regions"] if region["said"]]
    return "\n".join(lines) or _("Done.")


def quality(estimate) -> str:
    """How far a mask can be trusted: a word and the numbers behind it.

    The word follows the lower end of the interval too: a mask that may well be poor is not called good.
    """
    low = estimate.dice if estimate.interval is None else estimate.interval[0]
    if estimate.dice < POOR:
        word = _("please check")
    elif low < POOR:
        word = _("perhaps good")
    else:
        word = _("probably good")
    numbers = f"{estimate.dice:.2f}"
    if estimate.interval is not None:
        low, high = (f"{end:.2f}" for end in estimate.interval)
        numbers = _("{dice} ({low} to {high})").format(dice=numbers, low=low, high=high)
    return _("{word}, Dice {numbers}").format(word=word, numbers=numbers)
