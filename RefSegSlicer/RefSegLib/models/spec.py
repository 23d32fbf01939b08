"""What a segmentation model expects and what it gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import ndimage

Positive = Annotated[float, Field(gt=0)]
Size = Annotated[int, Field(ge=1)]
Spacing = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Millimeters = Annotated[float, Field(allow_inf_nan=False)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Code(_Value):
    """A coded concept, as in DICOM: scheme (SCT is SNOMED CT), value, meaning."""

    scheme: str = "SCT"
    value: str
    meaning: str


class Label(_Value):
    """One structure. value: its number in the label map; color: red, green, blue in 0..1."""

    value: Annotated[int, Field(ge=1, le=65535)]
    name: Annotated[str, Field(min_length=1)]
    color: tuple[Share, Share, Share]
    category: Code = Code(value="123037004", meaning="Anatomical Structure")
    type: Code | None = None
    modifier: Code | None = None


class Normalization(_Value):
    """How intensities are brought to the range the network knows.

    percentile: `low`..`high` percentile of the region to 0..1, not clipped beyond -0.5..1.5.
    zscore: mean 0, deviation 1 over the region.
    window: fixed values `low`..`high` (Hounsfield units) to 0..1, clipped.
    clip: percentile: clipped to 0..1; zscore: to the `low`..`high` percentile, before mean and deviation are taken.
    over: which voxels a zscore looks at: all; those in the box around what is not 0 in any channel; those that are not
    0 in their channel; those inside (holes filled) what is not 0 in any channel. With the last two all others become 0.
    """

    kind: Literal["percentile", "zscore", "window"] = "percentile"
    low: float = 0.5
    high: float = 99.5
    clip: bool = False
    over: Literal["all", "box", "nonzero", "filled"] = "all"

    @model_validator(mode="after")
    def _ordered(self) -> Normalization:
        if self.kind != "zscore" and not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles lie in 0..100, not {self.low:g}..{self.high:g}")
        return self

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Normalize (channel, k, j, i), all channels at once; returns float32 of the same shape."""
        result = np.empty(array.shape, np.float32)
        if self.kind == "zscore":
            for source, target, seen in zip(array, result, self._seen(array), strict=True):
                self._zscore(source, target, seen)
            return result
        span = (0.0, 1.0) if self.clip or self.kind == "window" else (-0.5, 1.5)
        for source, target in zip(array, result, strict=True):
            window = (self.low, self.high)
            low, high = window if self.kind == "window" else np.percentile(source, window)
            _scaled(source, float(low), float(high - low), target)
            np.clip(target, *span, out=target)
        return result

    def _zscore(self, source: np.ndarray, target: np.ndarray, seen: np.ndarray | tuple[slice, ...]) -> None:
        values = source[seen]
        if self.clip and values.size:
            source = np.clip(source, *np.percentile(values, (self.low, self.high)))
            values = source[seen]
        if values.size:
            _scaled(source, float(values.mean(dtype=float)), float(values.std(dtype=float)), target)
        if isinstance(seen, np.ndarray):
            target[~seen] = 0

    def _seen(self, array: np.ndarray) -> list[np.ndarray | tuple[slice, ...]]:
        """For each channel: the voxels whose mean and deviation count, as an index."""
        if self.over == "all":
            return [()] * len(array)
        if self.over == "nonzero":
            return [channel != 0 for channel in array]
        some = np.any(array != 0, axis=0)
        if self.over == "filled":
            return [ndimage.binary_fill_holes(some)] * len(array)
        boxes = ndimage.find_objects(some.astype(np.uint8))
        return [boxes[0] if boxes else ()] * len(array)


def _scaled(source: np.ndarray, low: float, scale: float, target: np.ndarray) -> None:
    """target = (source - low) / scale, in place: a copy in float32 of a 512x512x600 scan is 600 MB."""
    np.subtract(source, np.float32(low), out=target, casting="unsafe")
    target /= np.float32(max(scale, 1e-6))


class TemplateBox(_Value):
    """A box in the space of a template image, LPS mm.

    side: laterality of what lies in the box; its labels are named and coded with it.
    offset: added to the label values of this box, so that left and right stay apart in one label map.
    mirrored: the network sees this box flipped left to right (it then learns one side only).
    """

    lower: tuple[Millimeters, Millimeters, Millimeters]
    upper: tuple[Millimeters, Millimeters, Millimeters]
    side: Literal["left", "right"] | None = None
    offset: int = 0
    mirrored: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> TemplateBox:
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"the box {self.lower}..{self.upper} is empty")
        return self


class Region(_Value):
    """Where in an image the model looks.

    whole: everywhere. template: in boxes carried over from a template by affine registration; images smaller
    than `whole_below` mm along every axis are taken to be cut out already and are looked at whole.
    A box given by the user always wins.
    """

    kind: Literal["whole", "template"] = "whole"
    template: str | None = None
    boxes: tuple[TemplateBox, ...] = ()
    whole_below: Positive = 90.0


class Network(_Value):
    """A network by name (see models/networks.py; models/foreign.py for those made elsewhere) with its arguments."""

    name: str
    arguments: dict[str, Any] = {}


class SegmenterSpec(_Value):
    """Everything about a segmenter but its weights. Spacing and patch are in array order k, j, i; mm and voxels.

    For dimensions 2 the network sees slices along k; patch and spacing keep three entries with patch[0] = 1,
    and spacing[0] = 0 means: keep the slices as they are. spacing entries of 0 keep that axis' own spacing.
    aligned: images are turned to S, P, L order first; off for data without a patient orientation.
    synthesizer: the network that draws proxy images; None: one like the segmenter's, where that is one of ours.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    description: str = ""
    dimensions: Literal[2, 3] = 3
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]
    spacing: tuple[Spacing, Spacing, Spacing]
    patch: tuple[Size, Size, Size]
    aligned: bool = True
    normalization: Normalization = Normalization()
    region: Region = Region()
    network: Network
    synthesizer: Network | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SegmenterSpec:
        if [label.value for label in self.labels] != list(range(1, len(self.labels) + 1)):
            raise ValueError("labels must be numbered 1, 2, 3, ... in order (they are the output channels)")
        if self.dimensions == 2 and self.patch[0] != 1:
            raise ValueError("patch[0] must be 1 for a network that sees single slices")
        given = {bool(self.region.template), bool(self.region.boxes)}
        if given != {self.region.kind == "template"}:
            raise ValueError("a template region needs a template and at least one box, any other region neither")
        return self

    @property
    def outputs(self) -> int:
        """Output channels: background and one per label."""
        return len(self.labels) + 1
