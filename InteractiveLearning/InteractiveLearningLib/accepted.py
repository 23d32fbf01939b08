"""What an annotator accepted, on its way into the replay store and out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput
from RefSegLib.volume.volume import LabelMap, Volume

Role = Literal["train", "validation"]
LONGEST_SITE = 64


@dataclass(frozen=True)
class AcceptedCase:
    """What an annotator accepted.

    model: name of the model that learns from it.
    image, labels: on the same grid. region: that grid is a working grid of the model (RegionOfInterest.grid,
        mirrored or not) and is learnt from as it is; otherwise the learner looks for the regions itself.
    confidence: float32 (k, j, i) in 0..1, how much each voxel is to be trusted; None: a full mask, all ones.
    patient: any identifier; only its keyed hash is kept. A case that was loaded carries that hash.
    label_names: names of label values 1, 2, 3, ...
    annotated: (axis, index) of the slices a person outlined or confirmed, on the grid of the image.
    effort: length in mm of what was drawn, or None if unknown. consent: may be learnt from.
    site: where the image comes from (hospital, scanner), so that no site crowds out another; no name of a person.
    """

    model: str
    image: Volume
    labels: LabelMap
    patient: str
    label_names: tuple[str, ...]
    confidence: npt.NDArray[np.float32] | None = None
    annotated: tuple[tuple[int, int], ...] = ()
    effort: float | None = None
    consent: bool = True
    region: bool = False
    site: str = ""

    def drawn(self) -> npt.NDArray[np.bool_]:
        """Voxels (k, j, i) a person stands for: all of a full mask, the annotated slices of a proxy mask."""
        drawn = np.full(self.labels.array.shape, self.confidence is None)
        for axis, index in self.annotated:
            drawn[(slice(None),) * axis + (index,)] = True
        return drawn

    def check(self) -> None:
        """Raise BadInput, saying why, if the case cannot be learnt from."""
        self.image.check("The image of the accepted case")
        if not self.labels.grid.same_as(self.image.grid):
            raise BadInput("The accepted mask does not lie on the grid of its image. Resample one to the other first.")
        highest = int(self.labels.array.max())
        if highest == 0:
            raise BadInput("The accepted mask is empty; there is nothing to learn from it.")
        if highest > len(self.label_names):
            raise BadInput(
                f"The accepted mask holds the value {highest}, but only {len(self.label_names)} names are given."
            )
        if not self.patient.strip():
            raise BadInput(
                "The accepted case names no patient; without one it could end up on both sides of validation."
            )
        if len(self.site) > LONGEST_SITE or not self.site.isprintable():
            raise BadInput(f"The site of an accepted case must be a short name, of at most {LONGEST_SITE} characters.")
        confidence = self.confidence
        if confidence is not None and confidence.shape != self.labels.array.shape:
            raise BadInput(
                f"A confidence of shape {confidence.shape} does not fit a mask of {self.labels.array.shape}."
            )
        if confidence is not None and not (
            np.isfinite(confidence).all() and 0 <= confidence.min() <= confidence.max() <= 1
        ):
            raise BadInput("The confidence of an accepted case must lie between 0 and 1 everywhere.")
        for axis, index in self.annotated:
            if axis not in (0, 1, 2) or not 0 <= index < self.labels.array.shape[axis]:
                raise BadInput(f"The annotated slice {index} along axis {axis} lies outside the image.")


@dataclass(frozen=True)
class CaseInfo:
    """One row of the index, without arrays. patient is the keyed hash; structures are the labels in the mask."""

    id: str
    model: str
    patient: str
    role: Role
    accepted_at: str
    label_names: tuple[str, ...]
    annotated: tuple[tuple[int, int], ...]
    effort: float | None
    consent: bool
    site: str = ""
    structures: tuple[str, ...] = ()
