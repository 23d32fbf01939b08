"""What became of every candidate: an append-only file, one JSON line each, for panels and for a restarted learner.

    home/learner/verdicts/NAME.jsonl

A line is on the disk before the version it speaks of goes live, or is taken back, and a second line says which one is
live then. Whoever is next (the learner at its start, a review) carries out what a killed process left between the two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from RefSegLib.models.store import ModelStore

from InteractiveLearningLib.lines import LineLog
from InteractiveLearningLib.service.audit import GATE, About, Action, AuditLog

Outcome = Literal["published", "refused", "waiting", "skipped", "rolled_back"]
Means = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class CaseScore:
    """Dice of champion and candidate on one validation case, by label name. patient is the keyed hash; site is empty
    where none is known.
    """

    case: str
    patient: str
    champion: dict[str, float]
    candidate: dict[str, float]
    site: str = ""


@dataclass(frozen=True)
class Verdict:
    """published: the candidate is live. refused: it was no better. waiting: too few validation patients, `missing` more
    are needed. skipped: the case could not be learnt from and there is no candidate. rolled_back: reviewers rejected
    what the candidate made, and the champion, in use before it, is live again; `reviewed` reviews of the model had been
    made by then. reason is a sentence for people.

    structures, sites: mean Dice of champion and candidate by the name of a label and of a site ("": cases of which no
    site is known); a site with too few patients to be judged is not in it. case: None also where the candidate does
    not count for it, so that it is learnt again.
    """

    outcome: Outcome
    reason: str
    model: str
    case: str | None = None
    candidate: str | None = None
    champion: str | None = None
    before: float | None = None
    after: float | None = None
    p: float | None = None
    missing: int = 0
    scores: tuple[CaseScore, ...] = ()
    structures: Means = field(default_factory=dict)
    sites: Means = field(default_factory=dict)
    reviewed: int = 0
    at: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @property
    def published(self) -> bool:
        """True if the candidate went live."""
        return self.outcome == "published"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Verdict:
        """The inverse of to_dict, also through JSON and of what earlier versions of RefSeg wrote."""
        scores = tuple(CaseScore(**score) for score in values["scores"])
        means = {
            key: {name: tuple(pair) for name, pair in values.get(key, {}).items()} for key in ("structures", "sites")
        }
        return cls(**(values | means | {"scores": scores}))


class VerdictLog(LineLog):
    """The verdicts on the candidates of one model, oldest first."""

    def __init__(self, home: str | Path, model: str) -> None:
        super().__init__(Path(home) / "learner" / "verdicts" / f"{model}.jsonl")

    def verdicts(self) -> list[Verdict]:
        """All verdicts."""
        return [Verdict.from_dict(line["verdict"]) for line in self.lines() if "verdict" in line]

    def unfinished(self) -> Verdict | None:
        """The last verdict that changes which version is live, if nothing says that it was carried out."""
        for line in reversed(self.lines()):
            if "live" in line:
                return None
            if line["verdict"]["outcome"] in ("published", "rolled_back"):
                return Verdict.from_dict(line["verdict"])
        return None

    def scores(self) -> dict[tuple[str, str], dict[str, float]]:
        """(version, case) -> Dice by label, of all that was ever measured. Versions and cases never change."""
        known = {}
        for verdict in self.verdicts():
            for score in verdict.scores:
                known[str(verdict.champion), score.case] = score.champion
                known[str(verdict.candidate), score.case] = score.candidate
        return known

    def add(self, verdict: Verdict) -> None:
        """Append a verdict and wait until it is on the disk."""
        self.append({"verdict": verdict.to_dict()})

    def went_live(self, version: str) -> None:
        """Note which version is the active one now, after a verdict was carried out."""
        self.append({"live": version})


def carry_out(store: ModelStore, log: VerdictLog) -> Verdict | None:
    """Do what the last verdict says if that has not been done yet; returns it then. To be called in log.turn().

    A version that somebody has replaced since it was rejected is left as it is.
    """
    verdict = log.unfinished()
    if verdict is None:
        return None
    # The log of who did it first, so that nothing goes live without an entry; a kill here makes it two.
    audit = AuditLog(store.home)
    action = Action.PUBLISH if verdict.published else Action.ROLL_BACK
    audit.append(GATE, action, About(version=f"{verdict.model}@{verdict.candidate}"))
    audit.close()
    if verdict.published:
        store.activate(verdict.model, str(verdict.candidate))
    else:
        store.rollback(verdict.model, only=verdict.candidate)
    log.went_live(store.active(verdict.model))
    return verdict
