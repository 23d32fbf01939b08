"""The judge: candidates' masks in, how well their proxy images agree with the image out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from RefSegLib.models.networks import synthesizer_divisors
from RefSegLib.reflection.consensus import grown_box
from RefSegLib.reflection.drawing import drawer, padding
from RefSegLib.reflection.similarity import similarity
from RefSegLib.synthesis.synthesizer import Synthesizer, gray

CONTEXT = 8  # voxels around the region that the synthesizer sees
BLOCK = 2**21  # voxels drawn at once; larger boxes are drawn in blocks of slices


@dataclass(frozen=True)
class Verdict:
    """Of one mask. ssim, correlation: over the region; local: SSIM (k, j, i), 1 outside the box; proxy: (k, j, i)
    image, 0 outside the box."""

    ssim: float
    correlation: float
    local: npt.NDArray[np.float32]
    proxy: npt.NDArray[np.float32]


class Judge:
    """Compares proxies with one image (C, k, j, i), normalized, inside one region (k, j, i) bool, not empty."""

    def __init__(self, array: npt.NDArray[np.float32], region: npt.NDArray[np.bool_], synthesizer: Synthesizer) -> None:
        self.synthesizer = synthesizer
        self.shape = region.shape
        self.flat = synthesizer.spec.dimensions == 2
        self.box = grown_box(region, CONTEXT)
        self.region = torch.from_numpy(region[self.box].copy())
        # Of the whole image: in the box alone its range would be another one than in training.
        image = gray(array, synthesizer.spec)[self.box]
        self.image = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]

    @torch.inference_mode()
    def __call__(self, probabilities: npt.NDArray[np.floating]) -> Verdict:
        """The verdict on a soft mask (outputs, k, j, i) of the whole image."""
        inside = np.ascontiguousarray(probabilities[(slice(None), *self.box)], np.float32)
        drawn = self._draw(inside)
        found = similarity(torch.from_numpy(drawn)[None, None], self.image, self.region, self.flat)
        local, proxy = np.ones(self.shape, np.float32), np.zeros(self.shape, np.float32)
        local[self.box] = np.where(self.region.numpy(), found.local[0].numpy(), 1.0)
        proxy[self.box] = drawn
        return Verdict(float(found.ssim[0]), float(found.correlation[0]), local, proxy)

    def _draw(self, masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        slices = masks.shape[1]
        step = max(1, BLOCK // int(np.prod(masks.shape[2:])))
        if step >= slices:
            return self._draw_block(masks)
        parts = []
        for start in range(0, slices, step):
            first, last = max(0, start - CONTEXT), min(slices, start + step + CONTEXT)
            drawn = self._draw_block(masks[:, first:last])
            parts.append(drawn[start - first : start - first + step])
        return np.concatenate(parts)

    def _draw_block(self, masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        margins, inside = padding(
            masks.shape[1:], self.synthesizer.context, synthesizer_divisors(self.synthesizer.spec)
        )
        return drawer(self.synthesizer)(np.pad(masks, [(0, 0), *margins], mode="edge"))[inside]
