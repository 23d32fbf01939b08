"""The whole way from an image to its labels: where to look, working grid, network, back to the image's own voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import BadInput
from RefSegLib.inference.region import RegionOfInterest, find_regions
from RefSegLib.inference.restore import Painter, take
from RefSegLib.inference.segmenter import Segmenter
from RefSegLib.inference.tiling import infer, slabs
from RefSegLib.models.spec import Code, Label, SegmenterSpec
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

# A region with more probabilities than this (256 MB) is restored slab by slab and its probabilities are not kept:
# 256 cubed with three outputs is still kept, 512 x 512 x 600 is not.
KEPT_PROBABILITIES = 2**26

LATERALITY = {"left": Code(value="7771000", meaning="Left"), "right": Code(value="24028007", meaning="Right")}

# (array (C, k, j, i), probabilities (outputs, k, j, i), segmenter, progress) to anything with better `probabilities`.
Refine = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32], Segmenter, Progress], Any]


@dataclass(frozen=True)
class RegionResult:
    """What was found in one region.

    array: (C, k, j, i) float32, normalized, as the network saw it; probabilities: (outputs, k, j, i) float32 on
    region.grid; reflection: what `refine` gave; first: the probabilities before, where `refine` replaced them. A region
    of more than KEPT_PROBABILITIES values is too big to be kept or refined: all four are then None.
    """

    region: RegionOfInterest
    array: npt.NDArray[np.float32] | None
    probabilities: npt.NDArray[np.float32] | None
    reflection: Any = None
    first: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Segmentation:
    """labels: on the grid of the image; names: what its values mean, region by region; regions: the details."""

    labels: LabelMap
    names: tuple[Label, ...]
    regions: list[RegionResult]


def prepare(volume: Volume, grid: Grid, spec: SegmenterSpec) -> npt.NDArray[np.float32]:
    """What the network sees of `volume` on the working grid: (C, k, j, i) float32, normalized over the region.

    Voxels that only change their places are not interpolated. Outside the image stands its smallest value.
    """
    channels = []
    for source in volume.array:
        values = take(source, volume.grid, grid, outside=float(source.min()))[None]
        if spec.normalization.kind == "window":  # looks at no other voxel: by slices, a third of the memory
            channel = np.empty(values.shape, np.float32)
            for k in range(grid.shape[0]):
                channel[:, k] = spec.normalization(values[:, k])
            values = channel
        channels.append(values)
    array = channels[0] if len(channels) == 1 else np.concatenate(channels)
    return array if spec.normalization.kind == "window" else spec.normalization(array)


def segment(
    volume: Volume,
    segmenter: Segmenter,
    *,
    roi: Sequence[int] | None = None,
    refine: Refine | None = None,
    progress: Progress = SILENT,
) -> Segmentation:
    """Labels for `volume` on its own grid, 0 outside every region.

    roi: voxels (k0, j0, i0, k1, j1, i1), upper exclusive; refine: called for each region of a size that is kept.
    Probabilities are interpolated linearly from the working grid and the most probable label is taken; where
    the working grid only has its axes turned, labels come back voxel for voxel. Where regions overlap, the one
    with the higher probability of any structure wins. A model of single slices sees a volume slice by slice.

    Raises BadInput for an image this model cannot take (NaN, one single value, wrong channels, a flat image for a
    model of volumes), Cancelled if the user asked to stop.
    """
    spec = segmenter.spec
    _check(volume, spec)
    progress(0.0, "Looking for the region")
    regions = find_regions(volume, spec, roi, progress.part(0.0, 0.1))
    names = tuple(_named(label, region) for region in regions for label in spec.labels)
    painter = Painter(volume.grid, max(name.value for name in names), len(regions))
    results = []
    for number, region in enumerate(regions):
        part = progress.part(*(0.1 + 0.9 * n / len(regions) for n in (number, number + 1)))
        results.append(_region(volume, segmenter, region, painter, refine, part))
    unique = {name.value: name for name in names}
    progress(1.0, "Done")
    return Segmentation(LabelMap(painter.labels, volume.grid), tuple(unique.values()), results)


def _region(
    volume: Volume,
    segmenter: Segmenter,
    region: RegionOfInterest,
    painter: Painter,
    refine: Refine | None,
    progress: Progress,
) -> RegionResult:
    array = prepare(volume, region.grid, segmenter.spec)
    if segmenter.spec.outputs * array[0].size > KEPT_PROBABILITIES:
        painter.paint_slabs(slabs(segmenter, array, progress), region.grid, region.offset)
        return RegionResult(region, None, None)
    probabilities = infer(segmenter, array, progress.part(0.0, 0.4) if refine else progress)
    reflection = first = None
    if refine is not None:
        progress(0.4, "Reflecting")
        reflection = refine(array, probabilities, segmenter, progress.part(0.4, 1.0))
        first, probabilities = probabilities, np.asarray(reflection.probabilities, np.float32)
        if np.may_share_memory(first, probabilities):  # the first mask was kept
            first = None
    painter.paint(probabilities, region.grid, region.offset)
    return RegionResult(region, array, probabilities, reflection, first)


def _check(volume: Volume, spec: SegmenterSpec) -> None:
    volume.check()
    if volume.channels != len(spec.channels):
        raise BadInput(
            f"The image has {volume.channels} channel(s), but model '{spec.name}' takes "
            f"{len(spec.channels)}: {', '.join(spec.channels)}."
        )
    if volume.grid.planar and spec.dimensions == 3:
        raise BadInput(
            f"The image is flat (one slice without a place in a volume), but model '{spec.name}' needs a volume. "
            "Open the whole series, or choose a model for single images."
        )


def _named(label: Label, region: RegionOfInterest) -> Label:
    changes: dict[str, Any] = {"value": label.value + region.offset}
    if region.side is not None:
        code = LATERALITY[region.side]
        changes |= {"name": f"{code.meaning} {label.name}", "modifier": code}
    return label.model_copy(update=changes)
