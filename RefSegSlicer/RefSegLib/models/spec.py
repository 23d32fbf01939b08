"""What a segmentation model expects and what it gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    """

    kind: Literal["percentile", "zscore", "window"] = "percentile"
    low: float = 0.5
    high: float = 99.5

    @model_validator(mode="after")
    def _ordered(self) -> Normalization:
        if self.kind != "zscore" and not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles lie in 0..100, not {self.low:g}..{self.high:g}")
        return self

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Normalize (channel, k, j, i); returns float32 of the same shape."""
        result = np.empty(array.shape, np.float32)
        for source, target in zip(array, result, strict=True):
            if self.kind == "zscore":
                low, scale = float(source.mean(dtype=float)), float(source.std(dtype=float))
            else:
                window = (self.low, self.high)
                low, high = window if self.kind == "window" else np.percentile(source, window)
                scale = float(high - low)
            # In place: a copy in float32 of a 512x512x600 scan is 600 MB.
            np.subtract(source, np.float32(low), out=target, casting="unsafe")
            target /= np.float32(max(scale, 1e-6))
            if self.kind != "zscore":
                np.clip(target, *((0.0, 1.0) if self.kind == "window" else (-0.5, 1.5)), out=target)
        return result


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
    """A network by name (see models/networks.py) with its arguments."""

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
