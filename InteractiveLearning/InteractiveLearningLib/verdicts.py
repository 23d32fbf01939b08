"""What became of every candidate: an append-only file, one JSON line each, for panels and for a restarted learner.

    home/learner/verdicts/NAME.jsonl

A line is on the disk before the version it speaks of goes live, and a second line says that it went live. A learner
killed between the two finishes the publication at its next start; one killed while writing leaves half a line, which
readers pass over.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from RefSegLib.durable import sync_folder

Outcome = Literal["published", "refused", "waiting", "skipped"]


@dataclass(frozen=True)
class CaseScore:
    """Dice of champion and candidate on one validation case, by label name. patient is the keyed hash."""

    case: str
    patient: str
    champion: dict[str, float]
    candidate: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """published: the candidate is live. refused: it was no better. waiting: too few validation patients, `missing` more
    are needed. skipped: the case could not be learnt from and there is no candidate. reason is a sentence for people.
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
        """The inverse of to_dict."""
        return cls(**(values | {"scores": tuple(CaseScore(**score) for score in values["scores"])}))


class VerdictLog:
    """The verdicts on the candidates of one model, oldest first."""

    def __init__(self, home: str | Path, model: str) -> None:
        self.path = Path(home) / "learner" / "verdicts" / f"{model}.jsonl"

    def verdicts(self) -> list[Verdict]:
        """All verdicts."""
        return [Verdict.from_dict(line["verdict"]) for line in self._lines() if "verdict" in line]

    def unfinished(self) -> Verdict | None:
        """The last verdict if it says published but nothing says that the version went live."""
        last = next(iter(self._lines()[::-1]), {})
        verdict = Verdict.from_dict(last["verdict"]) if "verdict" in last else None
        return verdict if verdict and verdict.published else None

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
        self._append({"verdict": verdict.to_dict()})

    def went_live(self, version: str) -> None:
        """Note that a published version is the active one now."""
        self._append({"live": version})

    def _append(self, line: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the half line of a killed writer
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.path.read_bytes().splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found
