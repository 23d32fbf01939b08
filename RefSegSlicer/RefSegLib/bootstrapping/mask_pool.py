"""Masks that belong to no image: drawn from a shape prior, or those of another site, a little varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from RefSegLib.bootstrapping.mask_shapes import as_ellipse, cleaned
from RefSegLib.bootstrapping.poses import posed, random_poses
from RefSegLib.bootstrapping.shape_prior import EllipsePrior, draw_ellipses
from RefSegLib.errors import BadInput
from RefSegLib.volume.io import read_labels

DRAWN = 2000  # ellipses; more look no different
FEWEST = 10  # masks from which a shape can be learned
LARGEST, SMALLEST = 0.9, 0.002  # shares of the image a mask can take and still be a structure in it


@dataclass(frozen=True)
class Variation:
    """How far masks of another site are varied: scale up and down, rotation (degrees), shift (share of the frame)."""

    scale: float = 0.15
    rotation: float = 5.0
    shift: float = 0.05


STILL = Variation(0.0, 0.0, 0.0)  # an ellipse prior says all itself


@dataclass(frozen=True)
class MaskPool:
    """masks: (n, 1, j, i) float32 in 0..1; ellipses: whether the structure is known to be one."""

    masks: torch.Tensor
    variation: Variation
    ellipses: bool = False

    def __call__(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """`count` masks drawn with replacement: (count, 1, j, i)."""
        masks = self.masks[torch.randint(len(self.masks), (count,), generator=generator)]
        if self.variation == STILL:
            return masks
        way = self.variation
        poses = random_poses(count, masks.shape[2:], way.scale, way.rotation, way.shift, generator)
        return posed(masks, poses, "zeros")

    def shaped(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """A found mask (j, i) as a structure of this kind can be: so many parts, no holes, an ellipse if it is one."""
        mask = cleaned(mask, self.parts)
        return as_ellipse(mask) if self.ellipses else mask

    @cached_property
    def parts(self) -> int:
        """Of how many parts most masks are made: two lungs, one head."""
        counted = [cv2.connectedComponents((m[0].numpy() > 0.5).astype(np.uint8))[0] - 1 for m in self.masks[:200]]
        return max(1, int(np.median(counted)))


def ellipse_pool(prior: EllipsePrior, shape: tuple[int, int], seed: int) -> MaskPool:
    """Ellipses on a frame (j, i). Raises BadInput where the prior does not fit it."""
    masks = draw_ellipses(prior, shape, DRAWN, np.random.default_rng(seed))
    return MaskPool(torch.from_numpy(masks)[:, None], STILL, ellipses=True)


def file_pool(files: Sequence[Path], shape: tuple[int, int], variation: Variation | None = None) -> MaskPool:
    """The masks of files, anything but 0 being the structure, brought to the frame (j, i).

    Raises BadInput, naming the file, for a mask that is empty, fills its image or is no flat image, or for too few.
    """
    if len(files) < FEWEST:
        raise BadInput(f"{len(files)} masks do not tell what a structure looks like; at least {FEWEST} are needed.")
    masks = [framed(_flat(file), shape) for file in files]
    return MaskPool(torch.from_numpy(np.stack(masks))[:, None], variation or Variation())


def _flat(file: Path) -> npt.NDArray[np.float32]:
    array = read_labels(file).array
    if array.shape[0] != 1:
        raise BadInput(f"'{file}' has {array.shape[0]} slices; masks must be flat images.")
    mask = (array[0] > 0).astype(np.float32)
    if not SMALLEST <= mask.mean() <= LARGEST:
        raise BadInput(f"The mask '{file}' fills {100 * mask.mean():.1f} % of its image. Take it out.")
    return mask


def framed(picture: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A picture (j, i) on the frame `shape`: averaged where it is made smaller, interpolated where larger."""
    if picture.shape == tuple(shape):
        return np.ascontiguousarray(picture, np.float32)
    shrinks = shape[0] < picture.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(picture, np.float32), (shape[1], shape[0]), interpolation=how)
