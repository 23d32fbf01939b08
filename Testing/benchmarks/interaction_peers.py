"""Others' ways from a few outlined slices to a mask, on what ours is given: the same slices, limits and box.

What a method can use of the limits it gets: slices outside of them are background. Without limits, copying goes to the
ends of the image, and shapes are interpolated between the outermost outlines only, as Slicer does.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from interaction_data import OUT
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
# Voxels around what is drawn that every method looks at, in the plane of the slices.
MARGIN = 20
# "Seed locality" of Grow from seeds. 0, .5, 2, 5, 20 gave .860 .863 .863 .863 .862 on eight training cases of each set
# (k = 3, mean of four structures); Slicer's own default is 0.
SEED_LOCALITY = 2.0
ENVIRONMENT = OUT / "peers" / "bin" / "python"


@dataclass(frozen=True)
class Problem:
    """image (k, j, i), axis, outlined slices {index: mask}, first and last slice of the structure or None, spacing."""

    image: npt.NDArray
    axis: int
    slices: Mapping[int, Mask]
    limits: tuple[int, int] | None
    spacing: tuple[float, float, float]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The whole length of the axis, and what is drawn with a margin."""
        drawn = np.nonzero(np.logical_or.reduce(list(self.slices.values())))
        plane = [
            slice(max(int(at.min()) - MARGIN, 0), min(int(at.max()) + MARGIN + 1, size))
            for at, size in zip(drawn, np.delete(self.image.shape, self.axis), strict=True)
        ]
        plane.insert(self.axis, slice(0, self.image.shape[self.axis]))
        return tuple(plane)

    def cropped(self) -> Problem:
        """The same in its box, slices along the first axis."""
        box = self.box
        plane = tuple(part for a, part in enumerate(box) if a != self.axis)
        image = np.ascontiguousarray(np.moveaxis(self.image[box], self.axis, 0))
        spacing = (self.spacing[self.axis], *np.delete(self.spacing, self.axis).tolist())
        return Problem(image, 0, {n: mask[plane] for n, mask in sorted(self.slices.items())}, self.limits, spacing)


def copy(problem: Problem) -> Mask:
    """Every slice shows what the nearest outlined one does."""
    low, high = problem.limits or (0, len(problem.image) - 1)
    result = np.zeros(problem.image.shape, bool)
    for n in range(low, high + 1):
        result[n] = problem.slices[min(problem.slices, key=lambda m: abs(m - n))]
    return result


def shape(problem: Problem) -> Mask:
    """Signed distances interpolated between outlines (Raya and Udupa, IEEE TMI 1990); rounded off to the limits."""
    known = sorted(problem.slices)
    distance = {n: _signed(problem.slices[n], problem.spacing[1:]) for n in known}
    result = np.zeros(problem.image.shape, bool)
    for a, b in itertools.pairwise(known):
        for n in range(a, b + 1):
            t = (n - a) / (b - a)
            result[n] = (1 - t) * distance[a] + t * distance[b] > 0
    result[known[0]], result[known[-1]] = problem.slices[known[0]], problem.slices[known[-1]]
    if problem.limits:
        low, high = problem.limits
        for outermost, empty, beyond in (
            (known[0], low - 1, range(low, known[0])),
            (known[-1], high + 1, range(known[-1] + 1, high + 1)),
        ):
            for n in beyond:
                t = abs(n - outermost) / abs(empty - outermost)
                thickness = distance[outermost].max()
                result[n] = distance[outermost] - thickness * (1 - np.sqrt(1 - t * t)) > 0
    return result


def growcut(problem: Problem) -> Mask:
    """Slicer's "Grow from seeds": vtkImageGrowCutSegment (Zhu et al., 2014) with the best seed locality.

    Background seeds: the rest of every outlined slice, and the slices just outside the limits. As in Slicer it looks at
    the extent of the seeds grown by a tenth, three voxels at least.
    """
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    seeds = np.zeros(problem.image.shape, np.int16)
    for n, mask in problem.slices.items():
        seeds[n] = np.where(mask, 2, 1)
    seeded = list(problem.slices)
    if problem.limits:
        outside = [n for n in (problem.limits[0] - 1, problem.limits[1] + 1) if 0 <= n < len(seeds)]
        seeds[outside] = 1
        seeded += outside
    grown = max(3, int(0.1 * (max(seeded) - min(seeded) + 1)))
    part = slice(max(min(seeded) - grown, 0), max(seeded) + grown + 1)
    if problem.limits:
        part = slice(max(problem.limits[0] - 1, 0), problem.limits[1] + 2)

    def picture(array: npt.NDArray) -> vtk.vtkImageData:
        image = vtk.vtkImageData()
        image.SetDimensions(*array.shape[::-1])
        image.SetSpacing(*problem.spacing[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
        return image

    grow = slicer.vtkImageGrowCutSegment()
    grow.SetIntensityVolume(picture(np.ascontiguousarray(problem.image[part], np.float32)))
    grow.SetSeedLabelVolume(picture(seeds[part]))
    grow.SetDistancePenalty(SEED_LOCALITY)
    grow.Update()
    result = np.zeros(problem.image.shape, bool)
    found = vtk_to_numpy(grow.GetOutput().GetPointData().GetScalars())
    result[part] = found.reshape(seeds[part].shape) == 2
    return result


class Foreign:
    """The methods that live in an environment of their own; one process, so that it is started once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.seconds = 0.0

    def __call__(self, method: str, problem: Problem) -> Mask:
        """The mask of a method of interaction_foreign; how long it took, without starting, is in `seconds`."""
        if self._process is None:
            if not ENVIRONMENT.exists():
                raise SystemExit(
                    f"{ENVIRONMENT} with the methods of others is missing: make bench-interaction makes it."
                )
            script = str(Path(__file__).with_name("interaction_foreign.py"))
            command = [str(ENVIRONMENT), "-W", "ignore", script]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        low, high = problem.limits or (0, len(problem.image) - 1)
        with tempfile.TemporaryDirectory() as folder:
            asked = {"method": method, "problem": f"{folder}/problem.npz", "out": f"{folder}/out.npz"}
            np.savez(
                asked["problem"],
                image=problem.image,
                axis=problem.axis,
                slices=np.array(list(problem.slices)),
                masks=np.stack(list(problem.slices.values())),
                low=low,
                high=high,
                spacing=problem.spacing,
            )
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError(f"{method} ended: see what it wrote above. Is {ENVIRONMENT} whole?")
            self.seconds = json.loads(answer)["seconds"]
            with np.load(asked["out"]) as file:
                return file["mask"]

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()


FOREIGN = Foreign()
METHODS: dict[str, Callable[[Problem], Mask]] = {
    "growcut": growcut,
    "fill": lambda problem: FOREIGN("fill", problem),
    "fill_limits": lambda problem: FOREIGN("fill_limits", problem),
    "shape": shape,
    "copy": copy,
    "syn": lambda problem: FOREIGN("syn", problem),
}


def solved(method: str, problem: Problem) -> tuple[Mask, float]:
    """The mask of a method on the whole image, and the seconds it took."""
    cropped = problem.cropped()
    start = time.perf_counter()
    found = METHODS[method](cropped)
    seconds = FOREIGN.seconds if method in ("fill", "fill_limits", "syn") else time.perf_counter() - start
    result = np.zeros(problem.image.shape, bool)
    result[problem.box] = np.moveaxis(found, 0, problem.axis)
    for n, mask in problem.slices.items():  # Fill between slices may add to neighboring outlines
        result[(slice(None),) * problem.axis + (n,)] = mask
    return result, seconds


def _signed(mask: Mask, spacing: tuple[float, ...]) -> npt.NDArray[np.float32]:
    if not mask.any():
        return np.full(mask.shape, -max(mask.shape), np.float32)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return (inside - outside).astype(np.float32)
