"""A model version made ready: segments, reflects, and says in plain numbers what it did."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import ValidationError

from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import RegionResult, Segmentation, segment
from RefSegLib.inference.restore import Painter, take
from RefSegLib.inference.segmenter import load_segmenter
from RefSegLib.models.store import ModelVersion
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.reflect import Reflection
from RefSegLib.reflection.reflect import reflect as reflect_on
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import load_synthesizer
from RefSegLib.volume.volume import LabelMap, Volume

log = logging.getLogger(__name__)


class Engine:
    """Holds the networks of one version on one device; every call leaves their weights as they were."""

    def __init__(self, version: ModelVersion, device: str = "auto") -> None:
        self.version = version
        self.segmenter = load_segmenter(version, device)
        self.synthesizer = load_synthesizer(version)
        self.settings = _settings(version)

    def segment(
        self,
        volume: Volume,
        *,
        roi: Sequence[int] | None = None,
        reflect: bool | None = None,
        progress: Progress = SILENT,
    ) -> Segmentation:
        """Segment `volume`, with reflection if asked for (None: if the model can). roi as in inference.predict.

        Raises BadInput if reflection is asked of a model without a synthesizer, and whatever inference raises.
        """
        able = self.synthesizer is not None
        if reflect and not able:
            raise BadInput(
                f"Model '{self.version.name}' has no synthesizer, so it cannot reflect on its result. "
                "Segment with --no-reflect, or train one for it."
            )
        if reflect is False or not able:
            return segment(volume, self.segmenter, roi=roi, progress=progress)

        def refine(array, probabilities, segmenter, progress):
            return reflect_on(
                array, segmenter, self.synthesizer, self.settings, probabilities=probabilities, progress=progress
            )

        return segment(volume, self.segmenter, roi=roi, refine=refine, progress=progress)

    def describe(self, result: Segmentation) -> dict[str, Any]:
        """What was found, in JSON-able numbers: voxels and milliliters per label, the reflection of every region.

        Estimates of a region are by label value of the model, and "labels" tells their names on that side.
        """
        array, grid = result.labels.array, result.labels.grid
        counts = np.bincount(array.ravel(), minlength=max(n.value for n in result.names) + 1)
        labels = [
            {
                "value": name.value,
                "name": name.name,
                "voxels": int(counts[name.value]),
                "milliliters": round(float(counts[name.value]) * grid.voxel_volume / 1000, 3),
            }
            for name in result.names
        ]
        names = {name.value: name.name for name in result.names}
        regions = []
        for region in result.regions:
            own = {str(n.value): names[n.value + region.region.offset] for n in self.segmenter.spec.labels}
            regions.append(_describe_region(region, own))
        return {"labels": labels, "regions": regions}


def suspect_map(result: Segmentation) -> Volume | None:
    """How likely the label of each voxel is wrong: one channel, float32 in 0..1, on the grid of the image.

    Linear between the voxels of a working grid, voxel for voxel where only its axes are turned; the highest value
    where regions overlap, 0 outside of all. None if no region was reflected on.
    """
    reflected = [region for region in result.regions if region.reflection is not None]
    if not reflected:
        return None
    grid = result.labels.grid
    array = np.zeros(grid.shape, np.float32)
    for region in reflected:
        source = region.region.grid
        # Only the part of the image that the region can reach, to its outer faces: an image may be much larger.
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in source.shape])).reshape(3, -1).T
        found = grid.to_index(source.to_world(corners))
        lower = np.maximum(0, np.ceil(found.min(axis=0) - 1e-3)).astype(int)
        upper = np.minimum(grid.shape, np.floor(found.max(axis=0) + 1e-3).astype(int) + 1)
        if (lower < upper).all():
            part = array[tuple(map(slice, lower, upper))]
            values = take(region.reflection.suspect, source, grid.crop(lower, upper), outside=0.0)
            np.maximum(part, values, out=part)
    return Volume(array, grid)


def first_mask(result: Segmentation) -> LabelMap | None:
    """The mask as it was before reflection; None if reflection left every label of the image as it was."""
    regions = result.regions
    if all(region.first is None for region in regions) or any(region.probabilities is None for region in regions):
        return None
    painter = Painter(result.labels.grid, max(name.value for name in result.names), len(regions))
    for region in regions:
        painter.paint(
            region.probabilities if region.first is None else region.first, region.region.grid, region.region.offset
        )
    same = np.array_equal(painter.labels, result.labels.array)
    return None if same else LabelMap(painter.labels, result.labels.grid)


def _describe_region(result: RegionResult, names: dict[str, str]) -> dict[str, Any]:
    grid = result.region.grid
    entry: dict[str, Any] = {"side": result.region.side, "grid": grid.to_dict(), "labels": names}
    entry |= {"reflection": None, "said": ""}
    if result.reflection is not None:
        entry |= {"reflection": _describe_reflection(result.reflection), "said": result.reflection.reason}
    elif result.probabilities is None:
        entry["said"] = "This region is too large to be reflected on; the first mask is kept."
    return entry


def _settings(version: ModelVersion) -> ReflectionSettings:
    try:
        return ReflectionSettings.model_validate(version.manifest.reflection)
    except ValidationError:  # of another RefSeg: masks are still judged, estimates need a new calibration
        log.warning(
            "Reflection of %s@%s was calibrated by another version of RefSeg and is used without its estimates. "
            "Calibrate it again: refseg calibrate --model %s.",
            version.name,
            version.version,
            version.name,
        )
        return ReflectionSettings()


def _describe_reflection(reflection: Reflection) -> dict[str, Any]:
    return {
        "accepted": reflection.accepted,
        "reason": reflection.reason,
        "candidates": [_finite(asdict(candidate)) for candidate in reflection.candidates],
        "trace": reflection.trace,
        "similarity_before": reflection.similarity_before,
        "similarity_after": reflection.similarity_after,
        "changed": reflection.changed,
        "estimated_dice": {str(value): dice for value, dice in reflection.estimated_dice.items()},
        "estimated_interval": {str(value): list(ends) for value, ends in reflection.estimated_interval.items()},
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """The same with None for numbers that broke down, which JSON has no word for."""
    told = {name: _finite(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in told.items()}
