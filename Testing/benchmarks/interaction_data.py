"""The images and masks of bench_interaction, and where it keeps what it made.

Hippocampus (msd_hippocampus, coronal slices) and heart (acdc, short axis; its files have lost the spacing, 10 x 1.5 x
1.5 mm is assumed). Patients are split by the hash of their name; nothing is tuned on those that test.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from RefSegLib.models.spec import Label
from RefSegLib.training.split import patient_of, split_of
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, read_labels
from RefSegLib.volume.volume import LabelMap, Volume

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("REFSEG_DATA", ROOT.parent / "shared" / "data"))
OUT = ROOT / "out" / "bench-interaction"


@dataclass(frozen=True)
class Set:
    """A set of cases. axis: that slices are outlined along; spacing: where the files lost it; labels: value -> name;
    structures: what proxies are made of, as sets of label values."""

    axis: int
    spacing: tuple[float, float, float] | None
    labels: dict[int, str]
    structures: dict[str, tuple[int, ...]]

    @property
    def segments(self) -> tuple[Label, ...]:
        """The labels as sessions and models know them."""
        return tuple(Label(value=value, name=name, color=(1, 0, 0)) for value, name in self.labels.items())


SETS = {
    "msd_hippocampus": Set(1, None, {1: "anterior", 2: "posterior"}, {"hippocampus": (1, 2)}),
    "acdc": Set(0, (10.0, 1.5, 1.5), {1: "RV", 2: "myocardium", 3: "LV"}, {"RV": (1,), "myocardium": (2,), "LV": (3,)}),
}
STRUCTURES = ("hippocampus", "RV", "myocardium", "LV")


def patient(case: str) -> str:
    """Whose image a file shows."""
    return patient_of(case.removesuffix(".nii.gz"))


def cases(folder: str, split: str, limit: int | None = None) -> list[str]:
    """Names of the files of a split, in the order of the hash of their patients: any first few are a random choice."""
    names = sorted(p.name for p in (DATA / folder / "images").glob("*.nii.gz"))
    found = [name for name in names if split_of(patient(name)) == split]
    return sorted(found, key=lambda name: (hashlib.sha256(patient(name).encode()).hexdigest(), name))[:limit]


def load(folder: str, name: str) -> tuple[Volume, LabelMap]:
    """Image and labels of a case, with the spacing its set has."""
    volume, labels = read_image(DATA / folder / "images" / name), read_labels(DATA / folder / "labels" / name)
    spacing = SETS[folder].spacing
    grid = volume.grid if spacing is None else Grid(volume.grid.shape, spacing)
    return Volume(volume.array, grid), LabelMap(labels.array, grid)


def masks(folder: str, labels: LabelMap) -> dict[str, npt.NDArray[np.bool_]]:
    """The structures that a case shows, each as a mask (k, j, i)."""
    found = {name: np.isin(labels.array, values) for name, values in SETS[folder].structures.items()}
    return {name: mask for name, mask in found.items() if mask.any()}


def ends(mask: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and last slice of a mask along an axis."""
    at = np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[0]
    return int(at[0]), int(at[-1])


def places(low: int, high: int, k: int) -> list[int]:
    """The middles of k equal parts of the slices low..high, never the tips; fewer where the structure has no more."""
    length = high - low + 1
    return sorted({int(low + (n + 0.5) * length / k) for n in range(k)})
