"""What there is to tell of the versions of a model: plain values for panels, without anything of a patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from RefSegLib.errors import RefSegError
from RefSegLib.models.manifest import Manifest
from RefSegLib.models.store import ModelStore

from InteractiveLearningLib.reviews import Review, ReviewLog
from InteractiveLearningLib.verdicts import Verdict, VerdictLog


def version_table(store: ModelStore, model: str, last: int) -> list[dict[str, Any]]:
    """The newest `last` versions of a model, the newest first. Weights are not read. Of each:

    version, active, created (ISO 8601), parent (NAME@VERSION or None), cases (how many it learnt from at once), losses
    ([iteration from 1, loss], at most 200), damaged (a sentence, or None: then the four before are known);
    outcome, reason, judged: of its last verdict, None while there is none;
    dice, structures, sites: mean Dice, and {name: [of the version in use then or None, of this one]}; measured: where
    they are from: "judged" (compared on the validation patients with version `compared`, of mean Dice `before`, with
    p of the signed-rank test or None), "in use" (when a candidate was compared with it), "trained" (on the validation
    patients of its training), None (never measured);
    reviews: {accepted, rejected}, cases of it by their last review.
    """
    verdicts, active = VerdictLog(store.home, model).verdicts(), store.active(model)
    reviews = _reviews(ReviewLog(store.home, model).reviews())
    found = []
    for number in reversed(store.versions(model)[-last:]):
        manifest, damaged = None, None
        try:
            manifest = store.manifest(model, number)
        except RefSegError as error:
            damaged = str(error)
        own = [verdict for verdict in verdicts if verdict.candidate == number]
        accepted = reviews[number].values()
        about = {
            "version": number,
            "active": number == active,
            "damaged": damaged,
            "outcome": own[-1].outcome if own else None,
            "reason": own[-1].reason if own else None,
            "judged": own[-1].at if own else None,
            "reviews": {"accepted": sum(accepted), "rejected": len(accepted) - sum(accepted)},
        }
        found.append(about | _told(manifest) | _scores(number, verdicts, manifest))
    return found


def _told(manifest: Manifest | None) -> dict[str, Any]:
    if manifest is None:
        return {"created": None, "parent": None, "cases": 0, "losses": []}
    cases = manifest.data.get("cases")  # of what a learner made, ids; of what was trained from files, counts
    return {
        "created": manifest.created,
        "parent": manifest.parent,
        "cases": len(cases) if isinstance(cases, list) else 0,
        "losses": manifest.settings.get("losses", []),
    }


def _scores(number: str, verdicts: Sequence[Verdict], manifest: Manifest | None) -> dict[str, Any]:
    none = {"measured": None, "dice": None, "before": None, "compared": None, "p": None, "structures": {}, "sites": {}}
    for verdict in reversed(verdicts):
        if verdict.candidate == number and verdict.after is not None:
            return {
                "measured": "judged",
                "dice": verdict.after,
                "before": verdict.before,
                "compared": verdict.champion,
                "p": verdict.p,
                "structures": verdict.structures,
                "sites": verdict.sites,
            }
    for verdict in reversed(verdicts):
        if verdict.champion == number and verdict.before is not None:
            means = {
                key: {name: (None, before) for name, (before, _) in getattr(verdict, key).items()}
                for key in ("structures", "sites")
            }
            return none | means | {"measured": "in use", "dice": verdict.before}
    trained = {} if manifest is None else dict(manifest.scores.get("validation") or {})
    mean = trained.pop("mean", None)
    if not mean:
        return none
    structures = {name: (None, score["dice"]) for name, score in trained.items()}
    return none | {"measured": "trained", "dice": mean["dice"], "structures": structures}


def _reviews(reviews: Sequence[Review]) -> dict[str, dict[str | int, bool]]:
    """By version, whether each case was accepted by its last review; reviews without a case are one each."""
    found: dict[str, dict[str | int, bool]] = defaultdict(dict)
    for count, one in enumerate(reviews):
        found[one.version][count if one.case is None else one.case] = one.accepted
    return found
