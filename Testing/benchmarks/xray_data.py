"""Chest X-rays of three hospitals with both lungs as one mask, for the benchmarks of learning from imperfect labels.

cxr_lung of REFSEG_DATA: JSRT (224 x 224, codes 150 right lung, 200 left lung, 250 heart), Montgomery and Shenzhen
(256 x 256, 255 lungs). Nothing is cropped around the truth.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from RefSegLib.training.split import Role, patient_of, split_of

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("REFSEG_DATA", ROOT.parent / "shared" / "data"))
Site = Literal["JSRT", "Montgomery", "Shenzhen"]
LUNGS = {"JSRT": (150, 200), "Montgomery": (255,), "Shenzhen": (255,)}


@dataclass(frozen=True)
class Picture:
    """One X-ray. image: (j, i) float32 in 0..1; mask: (j, i) bool, both lungs."""

    name: str
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]

    @cached_property
    def role(self) -> Role:
        """Whether its patient trains, validates or tests."""
        return split_of(patient_of(self.name))


def lungs(site: Site, size: int) -> list[Picture]:
    """All X-rays of a hospital at size x size pixels, by name; averaged down, masks at half coverage.

    Raises FileNotFoundError, naming the folder, where the data are not.
    """
    folder = DATA / "cxr_lung" / site
    files = sorted((folder / "images").glob("*.png"))
    if not files:
        raise FileNotFoundError(f"There are no X-rays in {folder}; REFSEG_DATA names the folder with cxr_lung.")
    pictures = []
    for file in files:
        gray = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        codes = cv2.imread(str(folder / "masks" / file.name), cv2.IMREAD_GRAYSCALE)
        mask = np.isin(codes, LUNGS[site]).astype(np.float32)
        image, share = (cv2.resize(array, (size, size), interpolation=cv2.INTER_AREA) for array in (gray, mask))
        pictures.append(Picture(file.stem, image, share >= 0.5))
    return pictures
