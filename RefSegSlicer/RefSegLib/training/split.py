"""Who trains, who validates, who tests: decided once and for all by a hash of the patient's name."""

import hashlib
import re
from typing import Literal

Role = Literal["train", "validation", "test"]

# What names of files carry after the patient: visit, frame, phase of the heart, slice, repeated view, side, modality.
# Two files of one patient in two roles would flatter every score, so a doubtful ending is rather taken off than kept.
_BIDS = re.compile(r"^(sub-[A-Za-z0-9]+)(?:_.*)?$")
_ENDING = re.compile(
    r"[_.-](?:(?:frame|phase|slice|axis|time|visit|ses|session|scan|run|echo|rater|tp|t|s|v)[_-]?\d+"
    r"|\d?HC|ED|ES|left|right|lh|rh|OD|OS|L|R|0000|T1w?|T2w?|FLAIR|T1ce|T1Gd|bold|image|img|label|labels|mask|seg)$",
    re.IGNORECASE,
)


def patient_of(case: str) -> str:
    """The patient a case belongs to, from the case's name: "patient001_frame12" and "patient001_ED" are patient001.

    Follows BIDS ("sub-01_ses-2_T1w" is sub-01); otherwise takes endings for visit, frame, slice, side and the like
    off until none is left. A name without such an ending is the patient.
    """
    if match := _BIDS.match(case):
        return match.group(1)
    while (shorter := _ENDING.sub("", case)) != case and shorter:
        case = shorter
    return case


def split_of(patient: str) -> Role:
    """The role of a patient: 65 % train, 15 % validation, 20 % test; never changes, whoever else is in the set."""
    share = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") / 2**64
    if share < 0.65:
        return "train"
    return "validation" if share < 0.80 else "test"
