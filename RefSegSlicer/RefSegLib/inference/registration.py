"""Affine registration of a head to a template, to find a structure's box in it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from RefSegLib.errors import BadInput
from RefSegLib.progress import SILENT, Progress
from RefSegLib.resources import resource
from RefSegLib.volume.resample import to_sitk
from RefSegLib.volume.volume import Volume

# Human heads differ from the average by far less; beyond this the registration has failed or it is no head.
SCALE_LIMITS = (0.65, 1.5)
# Negated mutual information, as ITK reports it. Measured: T1 heads found right -1.6 (brain only, 1 mm) to -0.38 (skull,
# 6.5 mm slices, tumor); heads found wrong -0.24 at best, chest CT -0.16, noise -0.02, a plain block -0.22.
WORST_METRIC = -0.30
# A pose this good needs no further starts.
CLEAR_METRIC = -0.60


@dataclass(frozen=True)
class Affine:
    """Template LPS points to image LPS points: `matrix` (4, 4); metric: negated mutual information."""

    matrix: npt.NDArray[np.float64]
    metric: float

    @property
    def rotation(self) -> npt.NDArray[np.float64]:
        """The rotation nearest to the linear part (polar decomposition), 3x3."""
        u, _, vt = np.linalg.svd(self.matrix[:3, :3])
        return u @ vt

    def __call__(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Template LPS points (..., 3) to image LPS points."""
        return np.asarray(points, float) @ self.matrix[:3, :3].T + self.matrix[:3, 3]


@lru_cache(maxsize=4)
def _template(name: str) -> tuple[sitk.Image, sitk.Image]:
    image = sitk.ReadImage(str(resource(f"templates/{name}.nii.gz")), sitk.sitkFloat32)
    # The template is a brain without skull; the metric looks at the brain and its border only, so that heads
    # with and without skull register alike.
    mask = sitk.BinaryDilate(sitk.Cast(image > 0, sitk.sitkUInt8), (2, 2, 2))
    return image, mask


def _isotropic(image: sitk.Image, spacing: float) -> sitk.Image:
    """Smoothed and sampled at `spacing` mm; axes finer than that only, so that thick slices are not invented."""
    new = [max(spacing, s) for s in image.GetSpacing()]
    size = [max(1, round(n * s / t)) for n, s, t in zip(image.GetSize(), image.GetSpacing(), new, strict=True)]
    smooth = (
        sitk.SmoothingRecursiveGaussian(image, [max(t / 2, 1e-3) for t in new]) if min(image.GetSize()) > 3 else image
    )
    return sitk.Resample(
        smooth,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        new,
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )


def _compress(image: sitk.Image) -> sitk.Image:
    """Cut the brightest tenth of the foreground: bright scalp and contrast agent otherwise take most histogram bins."""
    values = sitk.GetArrayViewFromImage(image)
    foreground = values[values > values.mean()]
    return sitk.Clamp(image, sitk.sitkFloat32, float(np.percentile(values, 1)), float(np.percentile(foreground, 90)))


def _center_of_mass(image: sitk.Image) -> npt.NDArray[np.float64]:
    weights = sitk.GetArrayFromImage(image)
    weights = np.clip(weights - np.percentile(weights, 5), 0, np.percentile(weights, 99))
    index = [
        float((weights.sum(axis=tuple({0, 1, 2} - {a})) * np.arange(n)).sum()) for a, n in enumerate(weights.shape)
    ]
    total = float(weights.sum()) or 1.0
    return np.asarray(image.TransformContinuousIndexToPhysicalPoint([v / total for v in index[::-1]]))


def register_to_template(volume: Volume, template: str, progress: Progress = SILENT) -> Affine:
    """Find where the template's points lie in the first channel of `volume`.

    Mattes mutual information inside the template's brain, rigid then affine, from coarse to fine, started from the
    header's orientation. The same image gives the same answer. 2-6 s on one core.

    Raises BadInput if the image does not look like what the template shows.
    """
    fixed, mask = _template(template)
    if min(volume.grid.extent) < 40:
        raise BadInput(
            f"The image is only {min(volume.grid.extent):.0f} mm thick; a whole head is needed to find the structure. "
            "Give a box around it instead (--roi)."
        )
    moving = _compress(_isotropic(to_sitk(volume.array[0].astype(np.float32), volume.grid), 2.0))
    progress(0.1, "Looking for the structure")

    center = _center_of_mass(fixed)
    starts = _starts(fixed, mask, moving, center)
    progress(0.3, "Looking for the structure")
    best: tuple[float, sitk.Transform] | None = None
    for step, rigid in enumerate(starts):
        metric = _optimize(fixed, mask, moving, rigid, shrink=(4, 2), step=2.0, iterations=60)
        if best is None or metric < best[0]:
            best = (metric, rigid)
        progress(0.3 + 0.4 * (step + 1) / len(starts), "Looking for the structure")
        if best[0] < CLEAR_METRIC:
            break
    rigid = best[1]
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    affine.SetCenter(center.tolist())
    metric = _optimize(fixed, mask, moving, affine, shrink=(3, 2), step=0.5, iterations=80)
    progress(1.0, "Found where to look")

    # ITK's threads leave differences of 1e-7 from run to run; rounded, the same image gives the same box.
    matrix = np.eye(4)
    matrix[:3, :3] = np.round(np.asarray(affine.GetMatrix()).reshape(3, 3), 4)
    matrix[:3, 3] = np.round(affine.TransformPoint((0.0, 0.0, 0.0)), 2)
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if not all(SCALE_LIMITS[0] < s < SCALE_LIMITS[1] for s in scales) or metric > WORST_METRIC or math.isnan(metric):
        raise BadInput(
            "The image does not look like the kind of scan this model knows (it could not be matched to the template "
            f"{template}). Check that it is the right series, or give a box around the structure (--roi)."
        )
    return Affine(matrix, float(metric))


def _starts(
    fixed: sitk.Image, mask: sitk.Image, moving: sitk.Image, center: npt.NDArray
) -> list[sitk.Euler3DTransform]:
    """The most promising poses out of a coarse grid of shifts and nods around the middle of the head.

    A skull, a neck or thick slices pull the center of mass far from the brain's, and scans are tilted by 20 degrees
    and more.
    """
    fixed, mask, moving = sitk.Shrink(fixed, [4] * 3), sitk.Shrink(mask, [4] * 3), _isotropic(moving, 6.0)
    method = _metric(mask)
    size = np.asarray(moving.GetSize())
    middle = np.asarray(moving.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist()))
    mass = _center_of_mass(moving)
    found = []
    for origin in (mass, middle):
        for back, up, nod in itertools.product((-15, 0, 15), (-20, 0, 20, 40), (-0.3, 0.0, 0.3)):
            shift = origin - center + (0, back, up)
            pose = sitk.Euler3DTransform(center.tolist(), nod, 0.0, 0.0, shift.tolist())
            method.SetInitialTransform(pose, inPlace=False)
            try:
                found.append((method.MetricEvaluate(fixed, moving), len(found), pose))
            except RuntimeError:  # no overlap from here
                continue
    if not found:
        raise BadInput("The image is too small to find a head in it. Give a box around the structure instead (--roi).")
    return [pose for _, _, pose in sorted(found)[:4]]


def _metric(mask: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    # No sampling: ITK jitters even "regular" samples by the clock.
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _optimize(fixed, mask, moving, transform, *, shrink, step, iterations) -> float:
    """Move `transform` in place to the best match; returns the negated mutual information, NaN without overlap."""
    method = _metric(mask)
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3, iterations, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([float(s) for s in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # ITK's word for "all samples fell outside the image"
        return math.nan
    return method.GetMetricValue()
