"""How well two masks agree: Dice, 95 % Hausdorff distance, average symmetric surface distance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from RefSegLib.errors import BadInput
from RefSegLib.volume.volume import LabelMap

Mask = npt.NDArray[np.bool_]


def dice(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Dice overlap of two boolean masks of one shape, 0..1; 1 if both are empty."""
    a, b = _pair(a, b)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0


def hd95(a: npt.ArrayLike, b: npt.ArrayLike, spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance in mm between two boolean masks, the larger of the two directions.

    spacing: mm along each axis, in the order of the array. 0 if both masks are empty, infinite if only one is.
    """
    distances = _surface_distances(a, b, spacing)
    return distances if isinstance(distances, float) else float(max(np.percentile(d, 95) for d in distances))


def assd(a: npt.ArrayLike, b: npt.ArrayLike, spacing: Sequence[float]) -> float:
    """Average symmetric surface distance in mm: mean over the surface voxels of both masks. Empty masks as in hd95."""
    distances = _surface_distances(a, b, spacing)
    return distances if isinstance(distances, float) else float(np.concatenate(distances).mean())


def score(prediction: LabelMap, truth: LabelMap, values: Iterable[int]) -> dict[int, dict[str, float | None]]:
    """Dice, hd95 and assd of every label value, ready for JSON: {value: {"dice", "hd95", "assd"}}.

    A distance is None where one of the two masks is empty. Raises BadInput if the grids differ.
    """
    if not prediction.grid.same_as(truth.grid):
        raise BadInput(
            f"The result ({prediction.grid.shape} voxels) and the reference ({truth.grid.shape} voxels) "
            "lie on different grids; resample one onto the other before comparing them."
        )
    result: dict[int, dict[str, float | None]] = {}
    for value in values:
        a, b = prediction.array == value, truth.array == value
        distances = {"hd95": hd95(a, b, truth.grid.spacing), "assd": assd(a, b, truth.grid.spacing)}
        result[value] = {"dice": dice(a, b)} | {k: v if math.isfinite(v) else None for k, v in distances.items()}
    return result


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Mask, Mask]:
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise BadInput(f"Masks of {a.shape} and {b.shape} voxels cannot be compared.")
    return a, b


def _surface_distances(
    a: npt.ArrayLike, b: npt.ArrayLike, spacing: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | float:
    """Distance in mm of every surface voxel of one mask to the surface of the other, both ways; a float if empty.

    A surface voxel is one with a face neighbor outside the mask; outside the image counts as outside the mask
    (the convention of MONAI, against which the tests compare).
    """
    a, b = _pair(a, b)
    if not a.any() or not b.any():
        return 0.0 if not a.any() and not b.any() else math.inf
    # Only the box around both masks matters; surfaces and distances inside it are those of the whole image.
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (a, b)]
    to_a, to_b = (ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces)
    return to_b[surfaces[0]], to_a[surfaces[1]]
