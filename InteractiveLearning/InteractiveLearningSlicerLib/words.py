"""What a session has to tell, in translatable words."""

from RefSegSlicerLib.translation import tr as _


def begun(what):
    """What people should know of a session that begins (beginning.Begun), a sentence each."""
    said = []
    if what.resumed:
        said.append(_("The session that was cut off goes on."))
    elif what.session.earlier:
        count = len(what.session.earlier)
        said.append(
            _("What was said in earlier sessions is known ({count} times); undo ends there.").format(count=count)
        )
    if what.overlap:
        said.append(
            _(
                "Segments overlap in {count} voxels. They stay so, but the session knows the last of them there alone."
            ).format(count=what.overlap)
        )
    for name in what.unreadable:
        said.append(_("What was said earlier about '{name}' cannot be read; its mask is whole.").format(name=name))
    return said


def limits(name, plane, proposed):
    """Where does a segment begin and end? proposed: (axis, first, last), or None if nothing tells."""
    if proposed is None:
        return _(
            "Where does '{name}' begin and end? Set the first and the last {plane} slice, and press Use limits: "
            "nothing else helps as much. Or start to draw."
        ).format(name=name, plane=plane)
    return _(
        "'{name}' seems to lie in the {plane} slices {first} to {last}. Correct the numbers where they are wrong, and "
        "press Use limits: nothing else helps as much."
    ).format(name=name, plane=plane, first=proposed[1], last=proposed[2])


def suggested(suggestion):
    """Why a slice is asked for, and what to do there."""
    todo = _("Draw the border there, or paint; press Slice is right if it is.")
    return f"{suggestion.reason} {todo}"


def edits(count):
    """How many painted slices have entered the session."""
    if count == 1:
        return _("The slice that was painted is an outline now.")
    return _("{count} painted slices are outlines now; undo takes them back together.").format(count=count)


def estimate(dice):
    """An estimate of the mask (0..1), or None."""
    if dice is None:
        return _("Not known yet: outline three slices or more.")
    return _("Estimated Dice from the outlined slices: {dice:.2f} (each predicted from the others)").format(dice=dice)


def tool(name, locked):
    """What a tool of tools.py does, or why it cannot be used."""
    if locked:
        return _locked()
    return {
        "points": _("Click points in the slice views that are, or are not, part of the segment."),
        "scribble": _(
            "Click along a line; a double click ends it. Every voxel it passes is, or is not, part of the segment."
        ),
        "lasso": _(
            "Click around the structure, roughly; a double click closes the line. In this slice the segment lies "
            "inside of it, or none of it does."
        ),
        "curve": _(
            "Click a few points on the border of the structure; a double click closes the curve. Its inside is the "
            "outline of that slice."
        ),
        "box": _(
            "Click two opposite corners. The segment lies inside the box, which is as deep as it is wide unless its "
            "corners lie in different slices."
        ),
    }[name]


def side(inside, unsigned):
    """What is drawn is inside or outside, or why that is no question."""
    if unsigned:
        return _("A border and a box have an inside of their own.")
    return _("What you draw is part of the segment.") if inside else _("What you draw is not part of the segment.")


def confirm(index, locked):
    """What confirming a slice does, or why it cannot be done. index: of the slice that was asked for, or None."""
    if locked:
        return _locked()
    if index is None:
        return _("Press Next slice first.")
    return _("The mask is right in slice {index}: take it as an outline.").format(index=index)


def useLimits(locked):
    """What setting limits does, or why it cannot be done."""
    return _locked() if locked else _("The structure lies in these slices and nowhere else.")


def _locked():
    return _("This segment is locked. Remove the check mark of Locked to correct it.")
