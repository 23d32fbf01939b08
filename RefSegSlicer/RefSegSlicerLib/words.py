"""What a segmentation found, in words for the panel."""

from html import escape

from RefSegLib.jobs import POOR, estimates_of

from RefSegSlicerLib.translation import tr as _

IDENTITY = "identity"  # what the engine calls the first mask among its candidates


def side(told) -> str:
    """A region by its side."""
    return {"left": _("Left"), "right": _("Right")}.get(told, _("Image"))


def candidate(name) -> str:
    """A candidate of reflection."""
    return _("first mask") if name == IDENTITY else name


def said(found) -> list[str]:
    """What reflection decided, a line for each region. found: the image's entry in a report."""
    sides = {"left": _("Left"), "right": _("Right"), None: _("Reflection")}
    return [f"{sides[region['side']]}: {region['said']}" for region in found.get("regions", ()) if region["said"]]


def table(found, changed=()) -> str:
    """Every structure with its milliliters and how far its mask can be trusted, as HTML.

    found: as of `said`; changed: names of segments that were changed since, of which it is not true any more.
    """
    estimates = {estimate.name: estimate for estimate in estimates_of(found)} if found.get("regions") else {}
    rows = []
    for label in found.get("labels", ()):
        amount = _("{milliliters} ml").format(milliliters=f"{label['milliliters']:.2f}")
        known = label["name"] in estimates
        rows.append([label["name"], amount, quality(estimates[label["name"]]) if known else _("not estimated")])
    if changed:
        told = _("Changed since: {names}. This is about the masks as they were found.")
        return f"{_html(rows)}<p>{escape(told.format(names=', '.join(changed)))}</p>"
    return _html(rows) if rows else ""


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


def finished(done, kept) -> str:
    """What is told when a volume has been segmented. done: as of provenance; kept: names of segments left alone."""
    found = done.get("found") or {}
    empty = [label["name"] for label in found.get("labels", ()) if not label.get("voxels", 1)]
    lines = [_("Done. Check the result before you use it.")]
    if empty:
        lines.append(_("Not found: {names}.").format(names=", ".join(empty)))
    if kept:
        told = _("You have changed {names} since; that was kept, and the new mask lies beside it.")
        lines.append(told.format(names=", ".join(kept)))
    return "\n".join([*lines, *said(found)])


def batch(summary) -> str:
    """What is told when several volumes have been segmented. summary: batch.Summary."""
    count = len(summary.done) + len(summary.failed) + len(summary.left)
    lines = [_("{done} of {count} segmented.").format(done=len(summary.done), count=count)]
    lines += [_("{name} failed: {sentence}").format(name=name, sentence=why) for name, why in summary.failed]
    if summary.left:
        lines.append(_("Not begun or stopped: {names}.").format(names=", ".join(summary.left)))
    return "\n".join(lines)


def left(seconds) -> str:
    """How long it will still take; empty if nobody knows."""
    if seconds is None:
        return ""
    if seconds < 10:
        return _("a few seconds left")
    if seconds < 50:
        return _("about {seconds} seconds left").format(seconds=10 * round(seconds / 10))
    minutes = round(seconds / 60)
    if minutes <= 1:
        return _("about a minute left")
    if minutes < 90:
        return _("about {minutes} minutes left").format(minutes=minutes)
    return _("about {hours} hours left").format(hours=round(seconds / 3600))


def place(found) -> str:
    """One line on a place in doubt (quality.places.Place)."""
    return _("{structure}: {milliliters} ml, doubt {doubt}").format(
        structure=found.structure or _("Outside"), milliliters=f"{found.milliliters:.2g}", doubt=f"{found.doubt:.2f}"
    )


def whatWasDone(done) -> str:
    """What provenance tells, for people, as HTML."""
    settings = done.get("settings") or {}
    region = settings.get("region")
    if isinstance(region, list):
        region = _("voxels {lower} to {upper} (k, j, i)").format(lower=region[:3], upper=region[3:])
    elif region == "automatic":
        region = _("where the model looks by itself")
    else:
        region = _("whole volume")
    rows = [
        (_("Model"), _("{model}, version {version}").format(model=done.get("model"), version=done.get("version"))),
        (_("Reflection"), _("yes") if settings.get("reflect") else _("no")),
        (_("Region"), region),
        (_("When"), str(done.get("made_at", "")).replace("T", " ").replace("+00:00", " UTC")),
        (_("Where"), done.get("where") or _("not told")),
        (_("Program"), _("RefSeg {version}").format(version=done.get("refseg") or _("of unknown version"))),
        (_("Image"), short(done.get("image"))),
    ]
    files = {"segmenter": _("Segmenter"), "synthesizer": _("Synthesizer")}
    for name, digest in (done.get("weights") or {}).items():
        rows.append((files.get(name.partition(".")[0], name), short(digest)))
    return _html(rows)


def short(digest) -> str:
    """The beginning of a hash, enough to compare it."""
    return f"{digest[:16]}..." if digest else _("not told")


def aboutReflection(model) -> str:
    """What reflection does, or why a model (catalog.Model, or None) cannot."""
    if model is None:
        return _("Choose a model first.")
    if not model.reflects:
        return _("This model cannot reflect: it has no synthesizer. One can be trained for it.")
    return _(
        "Compare the mask with the image through a made-up image of it, and improve it where they differ. Takes longer."
    )


def _html(rows) -> str:
    lines = ["".join(f"<td>{escape(str(cell))}&nbsp;&nbsp;</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
