"""Which accepted cases are learnt from again: a reservoir in which neither a rare structure nor a rare site drowns."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from InteractiveLearningLib.accepted import CaseInfo


def balanced_reservoir(cases: Sequence[CaseInfo], capacity: int, seed: int = 0) -> list[CaseInfo]:
    """At most `capacity` of the cases, the same for the same seed whatever their order.

    Sites take turns until the room is used up, as the classes do in the class-balanced reservoir of Chrysakis and
    Moens 2020: a site has either all its cases in it or as many as any other, give or take one. Within a site the
    cases are drawn by weighted reservoir sampling (Efraimidis and Spirakis 2006): every case has a fixed random
    number u from the seed and its id, and those with the highest u^(1/w) stay. A case weighs one over the number of
    cases of its site that show the rarest of its structures; so where all show the same, the draw is uniform, and
    forgetting one case redraws no other.
    """
    sites = defaultdict(list)
    for case in cases:
        sites[case.site].append(case)
    turns = []
    for site, of_site in sites.items():
        shown = Counter(name for case in of_site for name in set(case.structures))
        rarity = {case.id: min((shown[name] for name in case.structures), default=len(of_site)) for case in of_site}
        # log(u^(1/w)) = log(u) / w, and 1 / w is the count
        drawn = sorted(of_site, key=lambda case: -math.log(_uniform(seed, case.id)) * rarity[case.id])
        turns += [(turn, _uniform(seed, f"site {site}"), case) for turn, case in enumerate(drawn)]
    return [case for _, _, case in sorted(turns, key=lambda entry: entry[:2])[: max(capacity, 0)]]


def _uniform(seed: int, name: str) -> float:
    """A number in (0, 1], fixed for a seed and a name."""
    return (int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big") + 1) / 2**48
