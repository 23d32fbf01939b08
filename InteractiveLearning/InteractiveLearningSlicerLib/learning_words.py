"""What there is to say about learning, about versions and about what is kept, in translatable words."""

from datetime import datetime

from RefSegSlicerLib.translation import tr as _

MANY_NAMES = 20


def learner(state, trouble, starting):
    """What the learner of a model does. state: Client.learning, {} while unknown; the others: see LearningLogic."""
    if trouble:
        return _("What was accepted is kept, but learning cannot be followed now: {why}").format(why=trouble)
    if not state:
        return starting or _("Asking...")
    number, count = state["cases"] - state["pending"] + 1, state["cases"]
    working = state["running"] and (state["pending"] or (state["status"] or {}).get("state") == "validating")
    if working and state["held"]:
        return _("Learning is held for a moment: somebody is working with an image.")
    if working:
        return _working(state, number, count)
    if state["trouble"]:
        return _("Learning could not go on: {why} It is tried again by itself.").format(why=state["trouble"])
    if state["pending"]:
        return _("Accepted cases that wait: {count}. Learning begins by itself.").format(count=state["pending"])
    if not count:
        return _("Nothing has been accepted for this model yet.")
    return _("Nothing is left to learn. Cases that were learnt: {count}.").format(count=count)


def _working(state, number, count):
    said = state["status"] or {}
    if said.get("state") == "validating":
        return _("Version {version} is compared with the active one.").format(version=state["newest"])
    if said.get("state") != "learning":
        return _("The learner starts.")
    if not said["iteration"]:
        return _("Learning case {number} of {count}: preparing.").format(number=number, count=count)
    return _("Learning case {number} of {count}: iteration {done} of at most {most}.").format(
        number=number, count=count, done=said["iteration"], most=said.get("iterations", "?")
    )


def percent(state):
    """How far the case is learnt that is at hand; None if none is."""
    said = state.get("status") or {}
    if not state.get("running") or said.get("state") != "learning" or not said.get("iterations"):
        return None
    return round(100 * said["iteration"] / said["iterations"])


def waiting(state):
    """What waits, what could not be learnt, what is needed before anything can be published; empty if nothing is."""
    said = []
    behind = state.get("pending", 0) - 1 if state.get("running") else 0
    if behind > 0:
        said.append(_("Cases that wait: {count}.").format(count=behind))
    skipped = [verdict for verdict in state.get("verdicts", ()) if verdict["outcome"] == "skipped"]
    if skipped:
        said.append(
            _("Cases that could not be learnt: {count}. The last of them: {why}").format(
                count=len(skipped), why=skipped[-1]["reason"]
            )
        )
    missing = state.get("missing", 0)
    if missing == 1:
        said.append(_("Nothing can be published before the cases of 1 more patient are kept for validation."))
    elif missing > 1:
        said.append(
            _("Nothing can be published before the cases of {count} more patients are kept for validation.").format(
                count=missing
            )
        )
    if missing:
        said.append(_("Which patients validate is drawn when their first case is accepted."))
    return " ".join(said)


def row(entry):
    """A version (Client.versions) as the cells of a table: number, when it was made, score, state."""
    return entry["version"], moment(entry["created"]), score(entry), standing(entry)


def score(entry):
    """Mean Dice of a version, and how much more or less it is than that of the version it was compared with."""
    if entry["dice"] is None:
        return "–"
    if entry["before"] is None:
        return f"{entry['dice']:.3f}"
    return f"{entry['dice']:.3f} ({entry['dice'] - entry['before']:+.3f})"


def standing(entry):
    """What became of a version, in a word."""
    if entry["active"]:
        return _("active")
    if entry["damaged"]:
        return _("damaged")
    return {
        "published": _("published"),
        "refused": _("refused"),
        "waiting": _("not judged yet"),
        "rolled_back": _("taken back"),
    }.get(entry["outcome"], _("added"))


def details(entry):
    """All there is to say about a version, a line each."""
    lines = [entry["damaged"] or "", entry["reason"] or ""]
    if entry["measured"] == "judged":
        lines.append(
            _("Mean Dice on the validation patients, version {before} → {version}:").format(
                before=entry["compared"], version=entry["version"]
            )
        )
    elif entry["measured"] == "in use":
        lines.append(_("Mean Dice on the validation patients, when others were compared with it:"))
    elif entry["measured"] == "trained":
        lines.append(_("Mean Dice on the validation patients of its training:"))
    lines += [f"   {name}: {_pair(pair)}" for name, pair in entry["structures"].items()]
    for name, pair in entry["sites"].items():
        place = _("site {name}").format(name=name) if name else _("without a site")
        lines.append(f"   {place}: {_pair(pair)}")
    if entry["parent"] and entry["cases"]:
        lines.append(
            _("Made from version {parent}; cases it learnt from: {count}.").format(
                parent=entry["parent"].rpartition("@")[2], count=entry["cases"]
            )
        )
    reviews = entry["reviews"]
    if reviews["accepted"] or reviews["rejected"]:
        lines.append(
            _("Reviewed masks: {accepted} accepted, {rejected} rejected.").format(
                accepted=reviews["accepted"], rejected=reviews["rejected"]
            )
        )
    return "\n".join(line for line in lines if line) or _("This version was added by hand and has not been compared.")


def _pair(pair):
    before, after = pair
    return f"{after:.3f}" if before is None else f"{before:.3f} → {after:.3f} ({after - before:+.3f})"


def moment(text):
    """A time of the service (ISO 8601), as of the clock here; empty for None."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M") if text else ""


def kept(found):
    """What is kept for a model (Client.replay), in sentences."""
    train, validation = found["train"], found["validation"]
    if not train["cases"] and not validation["cases"]:
        said = [_("Nothing is kept for this model yet.")]
    else:
        said = [
            _(
                "Kept to learn from: {train} (patients: {trainPatients}); to validate with: {held} (patients: "
                "{heldPatients}); {size} on the disk."
            ).format(
                train=train["cases"],
                trainPatients=train["patients"],
                held=validation["cases"],
                heldPatients=validation["patients"],
                size=size(found["bytes"]),
            ),
            _days(moment(found["oldest"])[:10], moment(found["newest"])[:10]),
        ]
    if found["without_consent"]:
        said.append(_("Without consent, so not used: {count}.").format(count=found["without_consent"]))
    if found["capacity"] is None:
        said.append(_("There is no limit to how many are kept."))
    else:
        said.append(
            _("At most {count} cases to learn from are kept; which, is balanced over sites and structures.").format(
                count=found["capacity"]
            )
        )
    return " ".join(said)


def _days(oldest, newest):
    if oldest == newest:
        return _("Accepted on {day}.").format(day=oldest)
    return _("Accepted from {oldest} to {newest}.").format(oldest=oldest, newest=newest)


def keptRows(found):
    """The same as the rows of a table: what, cases to learn from, cases to validate with."""
    rows = [(_("all"), str(found["train"]["cases"]), str(found["validation"]["cases"]))]
    for one in found["structures"]:
        rows.append((one["name"], str(one["train"]), str(one["validation"])))
    for one in found["sites"]:
        if one["name"] or len(found["sites"]) > 1:
            place = _("site {name}").format(name=one["name"]) if one["name"] else _("without a site")
            rows.append((place, str(one["train"]), str(one["validation"])))
    return rows


def lost(cases):
    """Cases (case, accepted) of which a file is missing or damaged; empty if there are none."""
    if not cases:
        return ""
    shown = ", ".join(
        _("{case} of {day}").format(case=one["case"][:8], day=moment(one["accepted"])[:10])
        for one in cases[:MANY_NAMES]
    )
    more = _(" and {count} more").format(count=len(cases) - MANY_NAMES) if len(cases) > MANY_NAMES else ""
    return _(
        "Damaged: {count} ({cases}{more}). They are left out; the others are not affected. Restore their files from a "
        "backup, or accept these cases again."
    ).format(count=len(cases), cases=shown, more=more)


def forgotten(result, model, active):
    """What came of forgetting a patient (Client.forget), and what to do about versions that had learnt."""
    if not result["cases"]:
        return _(
            "No case of this patient is kept here, so nothing was removed. Write the name or number as it was written "
            "when the cases were accepted."
        )
    said = [
        _("Removed for good: 1 case.")
        if result["cases"] == 1
        else _("Removed for good: {count} cases.").format(count=result["cases"])
    ]
    versions = result["versions"]
    if not versions:
        said.append(_("No version had learnt from this patient."))
        return " ".join(said)
    more = _(" and {count} more").format(count=len(versions) - MANY_NAMES) if len(versions) > MANY_NAMES else ""
    said.append(
        _("Versions that had learnt from this patient: {names}.").format(names=", ".join(versions[:MANY_NAMES]) + more)
    )
    if f"{model}@{active}" in versions:
        said.append(
            _(
                "Version {version} is active and among them: if it must not be used any more, choose an older version "
                "in the section Learning."
            ).format(version=active)
        )
    said.append(_("Exports and backups are files of their own."))
    return " ".join(said)


def size(count):
    """A number of bytes for people."""
    power = 1 if count < 999_500 else 2 if count < 999_500_000 else 3
    return f"{count / 1000**power:.3g} {('kB', 'MB', 'GB')[power - 1]}"


def denied(me, what):
    """Why a user may not do something."""
    return _("As {role} you may not {what}. Ask an administrator.").format(role=me.get("role", ""), what=what)


def rollBack(state):
    """What rolling back does. state: as of `learner`."""
    return _("Return to version {version}, which was active before.").format(version=state.get("previous"))


def rolledBack(wanted, active):
    """What came of rolling back to version `wanted`: `active` is in use now."""
    if active == wanted:
        return _("Version {version} is active again.").format(version=active)
    return _("Somebody else was faster: version {version} is active. Nothing was changed.").format(version=active)


def notRolledBack(learning):
    """Why nothing can be rolled back; empty if it can. learning: LearningLogic, None without a service."""
    state = learning.state if learning is not None and learning.model else {}
    if not state:
        return _("Nothing is known of the versions yet.")
    if not learning.may("roll back"):
        return denied(learning.me, _("roll back"))
    if state["previous"] is None:
        return _("No other version was active before this one.")
    return _("Wait until it is done.") if learning.acting else ""


def notUsed(learning, entry):
    """Why a version (an entry of LearningLogic.versions, or None) cannot be put to use; empty if it can."""
    if entry is None:
        return _("Select a version.")
    if not learning.may("publish"):
        return denied(learning.me, _("choose the version that is used"))
    if entry["active"]:
        return _("This version is active already.")
    if entry["damaged"]:
        return entry["damaged"]
    return _("Wait until it is done.") if learning.acting else ""


def curves(learning, entry):
    """Losses by the name of their series, (iterations from 1, losses): of the case at hand, and of a version, the
    newest that has any if `entry` is None or has none. learning: LearningLogic, None without a service."""
    if learning is None:
        return {}
    found, said = {}, learning.state.get("status") or {}
    if learning.state.get("running") and said.get("state") == "learning" and said.get("losses"):
        first = said["iteration"] - len(said["losses"]) + 1
        found[_("case at hand")] = list(range(first, said["iteration"] + 1)), said["losses"]
    chosen = [entry] if entry is not None and entry["losses"] else []
    for known in chosen or [other for other in learning.versions if other["losses"]][:1]:
        iterations, losses = zip(*known["losses"], strict=True)
        found[_("version {version}").format(version=known["version"])] = iterations, losses
    return found
