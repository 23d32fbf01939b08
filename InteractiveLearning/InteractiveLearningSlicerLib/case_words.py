"""What the section of the worklist tells, in translatable words."""

from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib.cases import ACCEPTED, REJECTED, SKIPPED, TODO


def hints():
    """What each button does, by its name."""
    return {
        "refreshButton": _("Look for the cases again."),
        "openButton": _("Open the case that is selected in the list."),
        "nextCaseButton": _("Open the next case about which nothing was decided."),
        "skipButton": _("Decide about this case another time, and open the next one."),
        "rejectButton": _(
            "This case cannot be used, or its mask is wrong. The model that made the mask is told; the next case is "
            "opened."
        ),
        "cancelLoadingButton": _("Stop opening this case."),
    }


def case(case, here):
    """A case as the list shows it. here: it is open."""
    states = {TODO: "", ACCEPTED: _("accepted"), REJECTED: _("rejected"), SKIPPED: _("skipped")}
    told = [states[case.state]]
    if case.other:
        told.append(_("{person} works on it").format(person=case.other))
    if here:
        told.append(_("open"))
    told = ", ".join(filter(None, told))
    return f"{case.name} ({told})" if told else case.name


def folder(wanted):
    """What the name of a folder is for. wanted: cases come from a folder."""
    if not wanted:
        return _("Choose 'A folder of images' above to name one.")
    return _("A folder of image files (NIfTI, NRRD, MetaImage) and DICOM series. Nothing is written into it.")


def progress(cases, present):
    """How far the list has come. present: the open case, or None."""
    decided = sum(case.state != TODO for case in cases)
    told = _("{decided} of {count} cases decided.").format(decided=decided, count=len(cases))
    return told if present is None else told + " " + _("Open: {name}.").format(name=present.name)
