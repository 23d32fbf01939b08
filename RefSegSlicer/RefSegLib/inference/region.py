"""Where in an image a model looks: everywhere, in a box, or in boxes carried over from a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from RefSegLib.errors import BadInput
from RefSegLib.inference.registration import Affine, register_to_template
from RefSegLib.models.spec import SegmenterSpec, TemplateBox
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

# Below this the head is as good as straight, and the image's own voxels are used without interpolation.
STRAIGHT_DEGREES = 7.0
# Of a working grid: 4 GB of float32. Half a meter of each axis at half a millimeter.
MOST_VOXELS = 2**30


@dataclass(frozen=True)
class RegionOfInterest:
    """A working grid (what the network sees) with what is added to the labels found there, and their side."""

    grid: Grid
    offset: int = 0
    side: Literal["left", "right"] | None = None


def find_regions(
    volume: Volume,
    spec: SegmenterSpec,
    roi: Sequence[int] | None = None,
    progress: Progress = SILENT,
) -> list[RegionOfInterest]:
    """The working grids for `volume`: one for a box or the whole image, one per box of a template region.

    roi: voxels (k0, j0, i0, k1, j1, i1) of the image, upper exclusive; wins over what the model asks for. A box
    names no side: what is in it is labeled without left or right.

    Raises BadInput for an impossible box or an image the template does not match.
    """
    if roi is not None:
        return [RegionOfInterest(_working_grid(_box_grid(volume.grid, roi), spec))]
    region = spec.region
    if region.kind == "whole" or max(volume.grid.extent) < region.whole_below:
        return [RegionOfInterest(_working_grid(volume.grid, spec))]
    affine = register_to_template(volume, region.template, progress)
    return [
        RegionOfInterest(_carried_grid(volume.grid, spec, box, affine), box.offset, box.side) for box in region.boxes
    ]


def _box_grid(grid: Grid, roi: Sequence[int]) -> Grid:
    lower, upper = np.asarray(roi[:3], int), np.asarray(roi[3:], int)
    if len(roi) != 6 or (lower >= upper).any() or (lower < 0).any() or (upper > grid.shape).any():
        raise BadInput(
            f"The box {tuple(roi)} does not lie inside the image of {grid.shape} voxels (order: k0 j0 i0 k1 j1 i1, "
            "the upper ones exclusive)."
        )
    return grid.crop(lower, upper)


def _spacing(grid: Grid, spec: SegmenterSpec) -> np.ndarray:
    """The model's spacing; where it is 0 the image's own is kept."""
    wanted = np.asarray(spec.spacing)
    return np.where(wanted > 0, wanted, grid.spacing)


def _working_grid(grid: Grid, spec: SegmenterSpec) -> Grid:
    turned = grid.aligned_to_lps() if spec.aligned else grid
    spacing = _spacing(turned, spec)
    # Within half a percent nothing is gained by interpolating; the voxels then stay as they are.
    if np.allclose(spacing, turned.spacing, rtol=5e-3):
        return turned
    voxels = float(np.prod(np.maximum(1, turned.extent / spacing)))
    if voxels > MOST_VOXELS:  # before anything of that size is asked of the memory
        raise BadInput(
            f"At the spacing of this model an image of {' x '.join(f'{mm:.0f}' for mm in turned.extent)} mm has "
            f"{voxels:.1e} voxels, more than can be held. Give a region of interest, or check the image's spacing."
        )
    return turned.with_spacing(spacing)


def _carried_grid(grid: Grid, spec: SegmenterSpec, box: TemplateBox, affine: Affine) -> Grid:
    """A grid over where the template's box lies in the patient, turned with the patient's head."""
    lower, upper = np.asarray(box.lower), np.asarray(box.upper)
    center = affine((lower + upper) / 2)
    size = np.linalg.norm(affine.matrix[:3, :3] * (upper - lower), axis=0)[::-1]  # mm along S, P, L
    turned = grid.aligned_to_lps()
    axes = affine.rotation.T[::-1]  # rows: where S, P, L of the template point to in the patient
    between = axes @ np.asarray(turned.direction).T
    straight = np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))) < STRAIGHT_DEGREES
    if straight:
        axes = np.asarray(turned.direction)
    spacing = _spacing(turned, spec)
    shape = np.maximum(1, np.ceil(size / spacing)).astype(int)
    corner = center - ((shape - 1) / 2 * spacing) @ axes
    if straight and np.allclose(spacing, turned.spacing, rtol=5e-3):
        spacing = np.asarray(turned.spacing)
        corner = turned.to_world(np.round(turned.to_index(corner)))  # on the image's own voxels
    if box.mirrored:
        corner = corner + (shape[2] - 1) * spacing[2] * axes[2]
        axes = axes * np.array([[1], [1], [-1]])
    return Grid(tuple(shape), spacing, axes, corner)
