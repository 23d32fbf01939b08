"""Pictures outlined by several people, and fetal heads, for bench_noisy.

REFSEG_DATA holds qubiq_brain_growth (29 slices of newborns' brains, 7 raters), fundus_vessels/CHASEDB1 (28 photographs
of 14 children's eyes, 2 raters) and hc18_fetal_head. Nothing is cropped around the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from RefSegLib.training.split import Role, patient_of, split_of
from xray_data import DATA, Picture


@dataclass(frozen=True)
class RatedPicture:
    """image: (j, i) float32 in 0..1; masks: (raters, j, i) bool; role: of its patient, by hash."""

    name: str
    image: npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]
    role: Role


def _smaller(array: npt.NDArray, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Averaged down to (j, i)."""
    return cv2.resize(array.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)


def heads(size: tuple[int, int]) -> list[Picture]:
    """Fetal heads in ultrasound (hc18) at (j, i) pixels, by name; masks at half coverage."""
    folder = DATA / "hc18_fetal_head"
    pictures = []
    for file in sorted((folder / "images").glob("*.png")):
        gray, mask = (cv2.imread(str(folder / what / file.name), cv2.IMREAD_GRAYSCALE) for what in ("images", "masks"))
        pictures.append(Picture(file.stem, _smaller(gray / 255, size), _smaller(mask > 0, size) >= 0.5))
    return pictures


def brains(size: tuple[int, int]) -> list[RatedPicture]:
    """Newborns' white matter (QUBIQ brain growth) at (j, i) pixels, seven raters; masks at half coverage."""
    with np.load(DATA / "qubiq_brain_growth" / "brain_growth.npz") as stored:
        names, images, masks = (stored[key] for key in ("ids", "images", "masks"))
    return [
        RatedPicture(
            str(name),
            _smaller(image / 255, size),
            np.stack([_smaller(mask, size) >= 0.5 for mask in theirs]),
            split_of(patient_of(str(name))),
        )
        for name, image, theirs in zip(names, images, masks, strict=True)
    ]


def vessels(size: tuple[int, int]) -> list[RatedPicture]:
    """Retinal vessels of children (CHASE DB1, green channel) at (j, i) pixels, two raters; both eyes of a child share
    a role. Masks at half coverage: the thinnest vessels are gone."""
    folder = DATA / "fundus_vessels" / "CHASEDB1"
    pictures = []
    for file in sorted(folder.glob("*.jpg")):
        masks = [
            cv2.imread(str(folder / f"{file.stem}_{rater}HO.png"), cv2.IMREAD_GRAYSCALE) for rater in ("1st", "2nd")
        ]
        pictures.append(
            RatedPicture(
                file.stem,
                _smaller(cv2.imread(str(file))[..., 1] / 255, size),
                np.stack([_smaller(mask > 0, size) >= 0.5 for mask in masks]),
                split_of(f"CHASEDB1-{file.stem[6:8]}"),
            )
        )
    return pictures
