"""Where the voxels of an image lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import BadInput

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(values, float).ravel())


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in patient space (LPS, mm). A value: immutable, compared by content.

    Everything is in the order of the numpy array, axes k, j, i (slowest first):

    shape: number of voxels along k, j, i.
    spacing: mm between voxels along k, j, i.
    direction: three rows; row a is the LPS unit vector along which array axis a runs.
    origin: LPS position in mm of the center of voxel (0, 0, 0).
    planar: the file had two axes (PNG, one radiograph); then shape[0] is 1.

    Raises BadInput if the grid is empty, flat, lies nowhere, or its axes are not perpendicular (gantry tilt must be
    corrected first).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    direction: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    planar: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing", _floats(self.spacing))
        object.__setattr__(self, "origin", _floats(self.origin))
        direction = np.asarray(self.direction, float)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise BadInput(f"An image of {' x '.join(map(str, self.shape))} voxels holds nothing to segment.")
        if len(self.spacing) != 3 or min(self.spacing) <= 0 or not np.isfinite(self.spacing).all():
            raise BadInput(f"The voxel spacing {self.spacing} mm is not positive; the header of the image is damaged.")
        if len(self.origin) != 3 or not np.isfinite(self.origin).all():
            raise BadInput(f"The image lies at {self.origin} mm, which is no place; its header is damaged.")
        if direction.shape != (3, 3) or not np.allclose(direction @ direction.T, np.eye(3), atol=1e-3):
            raise BadInput(
                "The axes of the image are not perpendicular (a tilted gantry, or a damaged header). "
                "Resample it to a straight grid first, for example with Slicer's 'Resample Scalar Volume'."
            )
        object.__setattr__(self, "direction", tuple(tuple(float(v) for v in row) for row in direction))

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4 matrix from voxel index (k, j, i, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction).T * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        """Size in mm along k, j, i, outer faces included."""
        return np.asarray(self.shape) * np.asarray(self.spacing)

    @property
    def voxel_volume(self) -> float:
        """Cubic millimeters of one voxel."""
        return float(np.prod(self.spacing))

    def to_world(self, index: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """LPS mm of (possibly fractional) voxel indices (..., 3) in order k, j, i."""
        return np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, world: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Fractional voxel indices (..., 3), order k, j, i, of LPS points (..., 3) in mm."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(world, float) @ inverse[:3, :3].T + inverse[:3, 3]

    def crop(self, lower: npt.ArrayLike, upper: npt.ArrayLike) -> Grid:
        """The grid of voxels lower..upper (upper exclusive, may reach outside) at the same places in the patient."""
        lower = np.asarray(lower, int)
        shape = np.asarray(upper, int) - lower
        return Grid(tuple(shape), self.spacing, self.direction, self.to_world(lower), self.planar)

    def with_spacing(self, spacing: npt.ArrayLike) -> Grid:
        """The same box and axes at another spacing; the outer faces of the first voxels stay where they are."""
        spacing = np.asarray(spacing, float)
        shape = np.maximum(1, np.round(self.extent / spacing - 1e-6)).astype(int)
        shift = (spacing - np.asarray(self.spacing)) / 2 / np.asarray(self.spacing)
        return Grid(tuple(shape), spacing, self.direction, self.to_world(shift), self.planar)

    def aligned_to_lps(self) -> Grid:
        """The same voxels with axes reordered and flipped so that k, j, i run as near as can be to S, P, L.

        Networks see every patient the same way up, whichever way the scanner stored the slices.
        """
        if self.planar:
            return self
        direction = np.asarray(self.direction)
        # Array axis k is S (world 2), j is P (1), i is L (0). Of equally good orders the first, the present one, stays:
        # an upright grid is not turned again.
        order = max(
            permutations(range(3)),
            key=lambda order: round(sum(abs(direction[axis, 2 - place]) for place, axis in enumerate(order)), 6),
        )
        signs = [np.sign(direction[axis, 2 - place]) or 1.0 for place, axis in enumerate(order)]
        corner = np.zeros(3)
        for axis, sign in zip(order, signs, strict=True):
            corner[axis] = self.shape[axis] - 1 if sign < 0 else 0
        return Grid(
            tuple(self.shape[a] for a in order),
            tuple(self.spacing[a] for a in order),
            tuple(tuple(s * direction[a]) for a, s in zip(order, signs, strict=True)),
            self.to_world(corner),
        )

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Same shape, and no voxel corner further apart than `tolerance` mm."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() <= tolerance)

    def ijk_to_ras(self) -> npt.NDArray[np.float64]:
        """The matrix MRML volume nodes hold: (i, j, k, 1) to RAS mm."""
        return LPS_TO_RAS @ self.affine[:, [2, 1, 0, 3]]

    @classmethod
    def from_ijk_to_ras(cls, matrix: npt.ArrayLike, shape: tuple[int, int, int]) -> Grid:
        """The grid of a MRML volume node. `shape` is k, j, i, as numpy gives it."""
        affine = (LPS_TO_RAS @ np.asarray(matrix, float))[:, [2, 1, 0, 3]]
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if not spacing.all():
            raise BadInput("The volume has a voxel of size zero; its geometry is damaged.")
        return cls(shape, spacing, (affine[:3, :3] / spacing).T, affine[:3, 3])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return {
            "shape": list(self.shape),
            "spacing": list(self.spacing),
            "direction": [list(row) for row in self.direction],
            "origin": list(self.origin),
            "planar": self.planar,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Grid:
        """The inverse of to_dict."""
        return cls(**values)
