"""Images without masks, as a bootstrap sees them: one flat picture each, all on one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from RefSegLib.bootstrapping.mask_pool import framed
from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import prepare
from RefSegLib.inference.region import find_regions
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.cases import Sample
from RefSegLib.training.split import Role, patient_of, split_of
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import case_name, read_image

DIVISOR = 8  # of the frame's sides: the generators halve three times
FEWEST = {"train": 16, "validation": 2}  # images; with fewer nothing was tried
APART = 1.25  # how much images may differ in size from the middle one: a segmenter sees them at one scale
FILTERS = [16, 32, 64, 128]


@dataclass(frozen=True)
class Picture:
    """One image. sample: as the network sees it, without labels yet; grid: where that lies; whole: the image's own."""

    file: Path
    sample: Sample
    grid: Grid
    whole: Grid

    @property
    def role(self) -> Role:
        """Whether its patient trains or validates."""
        return split_of(patient_of(self.sample.name))


def spec_of(files: Sequence[Path], name: str, label: str, size: int) -> SegmenterSpec:
    """A segmenter of flat images in which the longer side of the middle image is `size` pixels, sides a multiple of 8.

    Raises BadInput, naming the file, for volumes or images with another number of channels, and for images that differ
    too much in size.
    """
    grids, channels = [], set()
    for file in files:
        volume = read_image(file)
        volume.check(f"'{file}'")
        if volume.grid.shape[0] != 1:
            raise BadInput(
                f"'{file}' has {volume.grid.shape[0]} slices. Without labels only flat images can be learned from; "
                "save the slices that show the structure as images."
            )
        channels.add(volume.channels)
        if len(channels) > 1:
            raise BadInput(
                f"'{file}' has {volume.channels} channels, others have {sorted(channels)[0]}. Make them alike."
            )
        grids.append(volume.grid)
    sides = np.array([grid.extent[1:] for grid in grids])  # mm
    middle = np.median(sides, 0)
    for file, grid in zip(files, grids, strict=True):
        ratio = np.asarray(grid.extent[1:]) / middle
        if ratio.max() > APART or ratio.min() < 1 / APART:
            raise BadInput(
                f"'{file}' is {grid.extent[2]:.0f} x {grid.extent[1]:.0f} mm, but most images are about "
                f"{middle[1]:.0f} x {middle[0]:.0f} mm (a pixel without a size counts as 1 mm). Bring them to one "
                "size, or leave it out."
            )
    spacing = float(middle.max()) / size
    patch = [max(4 * DIVISOR, DIVISOR * round(side / spacing / DIVISOR)) for side in middle]
    return SegmenterSpec(
        name=name,
        dimensions=2,
        channels=tuple(f"channel {n + 1}" for n in range(channels.pop())),
        labels=(Label(value=1, name=label, color=(0.9, 0.6, 0.1)),),
        spacing=(0.0, *(float(side) / pixels for side, pixels in zip(middle, patch, strict=True))),
        patch=(1, *patch),
        aligned=False,
        network=Network(name="unet", arguments={"filters": FILTERS}),
    )


def read_pictures(files: Sequence[Path], spec: SegmenterSpec, progress: Progress = SILENT) -> list[Picture]:
    """The pictures of patients that train or validate; those of test patients are left alone. Raises BadInput if that
    leaves too few."""
    wanted = [file for file in files if split_of(patient_of(case_name(file))) != "test"]
    for role, fewest in FEWEST.items():
        count = sum(split_of(patient_of(case_name(file))) == role for file in wanted)
        if count < fewest:
            raise BadInput(
                f"Of {len(files)} images {count} belong to patients that fall to {role}, and {fewest} are needed: "
                "patients are drawn by a hash of their name (65 % train, 15 % validation, 20 % test). Add more images."
            )
    pictures = []
    for number, file in enumerate(wanted):
        progress(number / len(wanted), f"reading {file.name}")
        volume = read_image(file)
        grid = find_regions(volume, spec)[0].grid
        image = prepare(volume, grid, spec)
        sample = Sample(case_name(file), image, np.zeros(grid.shape, np.uint16), grid.spacing)
        pictures.append(Picture(file, sample, grid, volume.grid))
    return pictures


def stacked(pictures: Sequence[Picture], shape: tuple[int, int]) -> torch.Tensor:
    """All pictures on one frame: (n, C, j, i) float32, normalized as the segmenter sees them."""
    return torch.from_numpy(
        np.stack([np.stack([framed(channel[0], shape) for channel in p.sample.image]) for p in pictures])
    )


def gray(images: torch.Tensor) -> torch.Tensor:
    """(n, C, j, i) as (n, 1, j, i) in 0..1: the mean of the channels."""
    return images.mean(1, keepdim=True).clamp(0, 1)
