"""What may be said where: locked labels and the editable area are looked at before anything changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid

from InteractiveLearningLib.prompts import Click, Prompt


def check_allowed(
    prompts: Sequence[Prompt],
    labels: npt.NDArray,
    grid: Grid,
    structures: Mapping[int, Label],
    editable: npt.NDArray[np.bool_] | None,
    locked: Collection[int],
) -> None:
    """Raise BadInput if nothing is said, or about what must not change.

    labels: the label map (k, j, i) on `grid` now; structures: by value, those of the prompts among them; editable,
    locked: see Session.apply.
    """
    if not prompts:
        raise BadInput("Nothing was said; give at least one prompt.")
    if editable is not None and editable.shape != grid.shape:
        raise BadInput(f"An editable mask of {editable.shape} voxels does not fit an image of {grid.shape}.")
    for prompt in prompts:
        name = structures[prompt.label].name
        if prompt.label in locked:
            raise BadInput(f"'{name}' is locked. Unlock it to change it.")
        if not isinstance(prompt, Click):
            continue
        voxel = tuple(int(v) for v in np.rint(grid.to_index(prompt.point)))
        if any(not 0 <= v < n for v, n in zip(voxel, grid.shape, strict=True)):
            continue  # refused by the session, in its own words
        there = int(labels[voxel])
        if prompt.positive and there != prompt.label and there in locked:
            raise BadInput(f"The click for '{name}' lies inside '{structures[there].name}', which is locked.")
        if editable is not None and not editable[voxel]:
            raise BadInput("The click lies outside the editable area. Change that area, or click inside of it.")
