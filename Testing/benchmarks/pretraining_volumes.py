"""The arms of bench_pretraining on volumes: hippocampi from 8 patients with masks, clean and under the corruptions.

msd_hippocampus of REFSEG_DATA, patients by the hash of RefSegLib/training/split.py as everywhere: pretraining sees all
that train, without masks; the first 8 of them by hash have masks; the first 12 that validate choose epochs; the first
20 that test are the test.
"""

from __future__ import annotations

import hashlib
import resource
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from learning_data import DATA
from pretraining_arms import Task, trained
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.quality.corruptions import ALL, corrupt, moved
from RefSegLib.quality.metrics import dice
from RefSegLib.training.cases import Case, Sample, load_samples, pair_cases
from RefSegLib.training.segmenter import predict
from RefSegLib.training.split import Role

LABELED, VALIDATE, TEST = 8, 12, 20
SPEC = SegmenterSpec(
    name="hippocampus-transfer",
    channels=("MR",),
    labels=tuple(Label(value=n, name=name, color=(1, 0, 0)) for n, name in enumerate(("anterior", "posterior"), 1)),
    spacing=(1, 1, 1),
    patch=(40, 56, 40),
    aligned=False,
    network=Network(name="unet", arguments={"filters": [8, 16, 32, 64]}),
)
ARMS = (
    "random init",
    "T-AE + reconstruction",
    "masked autoencoding",
    "own augmentation",
    "own augmentation, T-AE + reconstruction",
    "own augmentation, masked autoencoding",
)


@lru_cache(maxsize=3)
def samples(role: Role) -> tuple[Sample, ...]:
    """The hippocampi of a role, ordered by hash of the patient."""
    folder = DATA / "msd_hippocampus"
    cases = sorted(pair_cases(folder / "images", folder / "labels"), key=_hash)
    return tuple(sample for case in cases if case.role == role for sample in load_samples(case, SPEC))


def _hash(case: Case) -> str:
    return hashlib.sha256(case.patient.encode()).hexdigest()


TASK = Task(
    "volumes",
    SPEC,
    steps=400,
    before=800,
    unlabeled=lambda: list(samples("train")),
    validation=lambda: list(samples("validation")[:VALIDATE]),
)


def run_volume_arm(name: str, seed: int) -> dict[str, Any]:
    """Train and test an arm; one line of the results."""
    segmenter, told = trained(TASK, name, list(samples("train")[:LABELED]), seed)
    found = {
        role: {name: _mean_dice(segmenter, role, count, name) for name in ("clean", *some)}
        for role, count, some in (("test", TEST, ALL), ("validation", VALIDATE, ALL))
    }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"task": "volumes", "arm": name, "share": LABELED, "seed": seed, **told, "found": found, "MB": memory}


def _mean_dice(segmenter: torch.nn.Module, role: Role, count: int, name: str) -> float:
    """The mean Dice over both labels and the first `count` volumes of a role, clean or corrupted at severity 5."""
    scores = []
    for number, sample in enumerate(samples(role)[:count]):
        image, labels = sample.image, sample.labels
        if name != "clean":
            image = SPEC.normalization(corrupt(image[0], name, 5, number)[None])
            labels = moved(labels, name, 5, number)
        found = predict(segmenter, image, SPEC)
        scores += [dice(found == value, labels == value) for value in (1, 2)]
    return round(float(np.mean(scores)), 5)
