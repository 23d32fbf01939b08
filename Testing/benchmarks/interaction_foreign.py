"""Methods of others that need an environment of their own (see peers.txt), as a process that is asked and answers.

Every line read names an .npz file with a problem (see interaction_peers.Problem) and a method; the mask is written to
the file "out", and one line with the seconds it took is the answer. Knows nothing of RefSeg.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))

import numpy as np
from scipy import ndimage

# Slices are enlarged until their shorter side has so many pixels, as ours are: SyN skips full resolution on small ones.
PIXELS = 160


def fill(problem, limits: bool = False) -> np.ndarray:
    """Slicer's "Fill between slices": itk::MorphologicalContourInterpolator (Zukic et al., Insight Journal 2016).

    limits: tell the filter that the slices outside the limits are drawn and empty, which Slicer does not offer; else
    it ends at the outermost outlines.
    """
    import itk

    image, axis = problem["image"], int(problem["axis"])
    labels = np.zeros(image.shape, np.uint8)
    for n, mask in zip(problem["slices"], problem["masks"]):  # noqa: B905 (the other environment's Python may be older)
        labels[(slice(None),) * axis + (int(n),)] = mask
    drawn = [int(n) for n in problem["slices"]]
    if limits:
        drawn += [n for n in (int(problem["low"]) - 1, int(problem["high"]) + 1) if 0 <= n < image.shape[axis]]
    if len(drawn) < 2:
        return labels > 0
    interpolator = itk.MorphologicalContourInterpolator.New(itk.image_from_array(labels), Axis=2 - axis)
    if limits:
        interpolator.SetUseCustomSlicePositions(True)
        interpolator.SetLabeledSliceIndices(2 - axis, 1, sorted(drawn))
    interpolator.Update()
    return itk.array_from_image(interpolator.GetOutput()) > 0


def syn(problem) -> np.ndarray:
    """Every slice registered by ANTs SyN to the nearest outlined one, whose mask is carried over (arXiv 2312.06072)."""
    import ants

    axis, low, high = int(problem["axis"]), int(problem["low"]), int(problem["high"])
    stack = np.moveaxis(problem["image"], axis, 0).astype(np.float32)
    slices, masks = problem["slices"].tolist(), problem["masks"]
    spacing = np.delete(problem["spacing"], axis)
    factor = min(4.0, max(1.0, PIXELS / min(stack.shape[1:])))

    def picture(array: np.ndarray, order: int):
        large = ndimage.zoom(array.astype(np.float32), factor, order=order, grid_mode=True, mode="nearest")
        return ants.from_numpy(large, spacing=[float(s) for s in spacing / factor])

    result = np.zeros(stack.shape, bool)
    for n in range(low, high + 1):
        nearest = min(range(len(slices)), key=lambda at: abs(slices[at] - n))
        if slices[nearest] == n or not masks[nearest].any():
            result[n] = masks[nearest]
            continue
        fixed, moving = picture(stack[n], 1), picture(stack[slices[nearest]], 1)
        found = ants.registration(fixed, moving, type_of_transform="SyN", random_seed=1)
        drawn = picture(masks[nearest], 0)
        moved = ants.apply_transforms(fixed, drawn, found["fwdtransforms"], interpolator="linear").numpy()
        for file in {*found["fwdtransforms"], *found["invtransforms"]}:
            os.path.exists(file) and os.remove(file)  # noqa: PTH107, PTH110
        size = [a / b for a, b in zip(result[n].shape, moved.shape)]  # noqa: B905
        result[n] = ndimage.zoom(moved, size, order=1, grid_mode=True, mode="nearest") > 0.5
    return np.moveaxis(result, 0, axis)


METHODS = {"fill": fill, "fill_limits": lambda problem: fill(problem, True), "syn": syn}


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    for line in sys.stdin:
        asked = json.loads(line)
        with np.load(asked["problem"]) as file:
            problem = dict(file)
        if asked["method"] == "syn":  # starting them is not timed
            import ants  # noqa: F401
        else:
            import itk  # noqa: F401
        start = time.perf_counter()
        mask = METHODS[asked["method"]](problem)
        seconds = time.perf_counter() - start
        np.savez(asked["out"], mask=mask)
        answers.write(json.dumps({"seconds": seconds}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
