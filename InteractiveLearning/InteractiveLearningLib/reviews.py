"""What reviewers say of the masks a version made; a version that they reject again and again is taken back by itself.

    home/learner/reviews/NAME.jsonl    one review a line

A review is on the disk before anything follows from it, and the verdict that takes a version back is on the disk before
it is taken back (verdicts.py). Whoever is killed in between, `settle` does the rest, at the next review or when a
learner or the service starts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.store import ModelStore

from InteractiveLearningLib.lines import LineLog
from InteractiveLearningLib.service.audit import USER_NAME
from InteractiveLearningLib.verdicts import Verdict, VerdictLog, carry_out

RUN = 3
MANY, LAST = 5, 8
_CASE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Review:
    """accepted: what the version made of a case was good enough. by: the account of the reviewer."""

    version: str
    accepted: bool
    case: str | None
    by: str
    at: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))


@dataclass(frozen=True)
class Reviewed:
    """active: the version in use now. rolled_back: it was gone back to just now. reason: why, or why that could not be;
    None while reviewers are content.
    """

    active: str
    rolled_back: bool
    reason: str | None


class ReviewLog(LineLog):
    """The reviews of one model, oldest first."""

    def __init__(self, home: str | Path, model: str) -> None:
        super().__init__(Path(home) / "learner" / "reviews" / f"{model}.jsonl")

    def reviews(self) -> list[Review]:
        """All reviews."""
        return [Review(**line) for line in self.lines()]

    def add(self, review: Review) -> None:
        """Append a review and wait until it is on the disk."""
        self.append(asdict(review))


def review(
    store: ModelStore,
    home: str | Path,
    model: str,
    version: str,
    accepted: bool,
    case: str | None = None,
    by: str = "console",
) -> Reviewed:
    """Note what a reviewer says of a mask that `version` made, and take the active version back if that is called for.

    case: its id (32 hex digits), so that a second review of it replaces the first; None: a case of its own.
    Raises BadInput, with nothing kept, for a version that is not there or a case or account that is no id;
    RefSegError if the review could not be written.
    """
    if version not in store.versions(model):
        raise BadInput(f"'{model}' has no version '{version}'. Versions: {', '.join(store.versions(model))}.")
    if case is not None and not _CASE.fullmatch(case):
        raise BadInput("A case is named by its id, 32 hexadecimal digits; nothing else may enter the log of reviews.")
    if not USER_NAME.fullmatch(by):
        raise BadInput("A reviewer is named by the name of an account.")
    ReviewLog(home, model).add(Review(version, accepted, case, by))
    return settle(store, home, model)


def settle(store: ModelStore, home: str | Path, model: str) -> Reviewed:
    """Carry out what verdicts and reviews call for and a killed process has left undone."""
    log = VerdictLog(home, model)
    with log.turn():
        done = carry_out(store, log)
        active = store.active(model)
        if done is not None and done.outcome == "rolled_back":
            return Reviewed(active, True, done.reason)
        reviews = ReviewLog(home, model).reviews()
        why = complaint(_rejections(reviews, log.verdicts(), active))
        if why is None:
            return Reviewed(active, False, None)
        said = f"Reviewers rejected {why} of version {active}"
        before = store.previous(model)
        if before is None:
            return Reviewed(active, False, f"{said}, but no other version of '{model}' has been in use to go back to.")
        try:
            store.verify(model, before)
        except RefSegError as error:
            return Reviewed(active, False, f"{said}, but there is no going back to the one before: {error}")
        reason = f"Taken back: {said}; version {before} is in use again."
        rolled_back = Verdict("rolled_back", reason, model, candidate=active, champion=before, reviewed=len(reviews))
        log.add(rolled_back)
        carry_out(store, log)
        return Reviewed(store.active(model), True, reason)


def complaint(rejections: Sequence[bool]) -> str | None:
    """The rule. rejections: of the cases of one version, oldest first. None, or what was rejected in words.

    A version is taken back after 3 rejections in a row, or 5 among the last 8 cases. How probable it is that this
    happens within so many reviewed cases, if each is rejected independently with the same probability (exact, over all
    sequences; Testing/Python/test_reviews.py computes it anew):

        rejected    within 8    within 20    within 100
        10 %          0.6 %        1.7 %         9.1 %
        50 %         48.4 %       87.2 %       100.0 %

    A false alarm costs little: the version in use before is one that was good enough to go live, and a person can
    activate the other one again.
    """
    if len(rejections) >= RUN and all(rejections[-RUN:]):
        return f"the last {RUN} cases"
    if sum(rejections[-LAST:]) >= MANY:
        return f"{sum(rejections[-LAST:])} of the last {len(rejections[-LAST:])} cases"
    return None


def _rejections(reviews: Sequence[Review], verdicts: Sequence[Verdict], version: str) -> list[bool]:
    """Which cases of a version were rejected, by their last review; since it was last taken back, if ever."""
    taken_back = [v.reviewed for v in verdicts if v.outcome == "rolled_back" and v.candidate == version]
    last: dict[str | int, bool] = {}
    for number, one in enumerate(reviews):
        if one.version == version and number >= max(taken_back, default=0):
            key = number if one.case is None else one.case
            last.pop(key, None)
            last[key] = not one.accepted
    return list(last.values())
