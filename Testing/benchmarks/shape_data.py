"""The images of bench_bootstrap, the shapes known beforehand, and a classical peer for each.

Fetal heads (hc18_fetal_head): whole images, 72 x 48 pixels. Optic discs (fundus_optic_disc_drishti): the green channel
of a square of half the photograph's width around the brightest spot of a disc's size, 64 x 64; the truth plays no part
in finding it. Lungs (cxr_lung): X-rays of JSRT, 64 x 64, and the masks, without their images, of Montgomery.

Patients by the hash of RefSegLib/training/split.py. All are averaged down, masks at half coverage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from RefSegLib.bootstrapping.mask_pool import MaskPool, Variation, ellipse_pool
from RefSegLib.bootstrapping.shape_prior import read_prior
from RefSegLib.models.spec import Normalization
from RefSegLib.resources import resource
from RefSegLib.training.split import patient_of, split_of
from scipy import ndimage
from torch.nn import functional as F
from xray_data import lungs

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("REFSEG_DATA", ROOT.parent / "shared" / "data"))
SETS = ("fetal head", "optic disc", "lungs")
Gray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Peer = Callable[[Sequence[Gray], MaskPool], list[Mask]]


@dataclass(frozen=True)
class Set:
    """images: (n, 1, j, i) float32 in 0..1, normalized one by one as `refseg` does; truth: (n, 1, j, i) float32 0 or 1,
    looked at only to score and by the oracle; roles: of the patients; pool: the masks known beforehand; other: the
    site that they are of, with its images, which only a row for comparison looks at."""

    name: str
    images: torch.Tensor
    truth: torch.Tensor
    roles: list[str]
    pool: MaskPool
    peer: Peer
    other: Set | None = None

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return tuple(self.images.shape[2:])

    def of(self, role: str) -> torch.Tensor:
        """(n,) bool."""
        return torch.tensor([one == role for one in self.roles])


def load_set(name: str) -> Set:
    """One of SETS. Raises FileNotFoundError where the data are not."""
    if name == "lungs":
        here, there = ([(p.name, p.image, p.mask) for p in lungs(site, 64)] for site in ("JSRT", "Montgomery"))
        masks = np.stack([mask for _, _, mask in there]).astype(np.float32)
        pool = MaskPool(torch.from_numpy(masks)[:, None], Variation())
        other = _set(name, *zip(*there, strict=True), pool, dark_parts)
        return replace(_set(name, *zip(*here, strict=True), pool, dark_parts), other=other)
    if name == "optic disc":
        names, images, masks = _discs()
        pool = ellipse_pool(read_prior(resource("specs/optic-disc-prior.json")), (64, 64), 0)
        return _set(name, names, images, masks, pool, bright_ellipses)
    names, images, masks = _heads()
    pool = ellipse_pool(read_prior(resource("specs/fetal-head-prior.json")), (48, 72), 0)
    return _set(name, names, images, masks, pool, skull_ellipses)


def _set(
    name: str,
    names: Sequence[str],
    images: Sequence[Gray],
    masks: Sequence[Mask],
    pool: MaskPool,
    peer: Peer,
) -> Set:
    seen = np.stack([Normalization()(image[None, None])[0] for image in images]).clip(0, 1)
    truth = torch.from_numpy(np.stack(masks)[:, None].astype(np.float32))
    return Set(name, torch.from_numpy(seen), truth, [split_of(patient_of(n)) for n in names], pool, peer)


def _files(folder: Path, pattern: str) -> list[Path]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"There is nothing in {folder}; REFSEG_DATA names the folder it lies in.")
    return files


def _small(array: npt.NDArray, size: tuple[int, int]) -> Gray:
    return cv2.resize(array.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def _heads() -> tuple[list[str], list[Gray], list[Mask]]:
    folder = DATA / "hc18_fetal_head"
    names, images, masks = [], [], []
    for file in _files(folder / "images", "*.png"):
        names.append(file.stem)
        images.append(_small(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), (72, 48)))
        masks.append(_small(cv2.imread(str(folder / "masks" / file.name), cv2.IMREAD_GRAYSCALE), (72, 48)) > 127)
    return names, images, masks


def _discs() -> tuple[list[str], list[Gray], list[Mask]]:
    names, images, masks = [], [], []
    for file in _files(DATA / "fundus_optic_disc_drishti", "*/images/*.jpg"):
        photograph = cv2.imread(str(file))
        agreed = cv2.imread(str(file.parents[1] / "softmaps" / f"{file.stem}_OD.png"), cv2.IMREAD_GRAYSCALE)
        part = around_bright(photograph)
        names.append(file.stem)
        images.append(_small(photograph[..., 1][part], (64, 64)))
        masks.append(_small(agreed[part], (64, 64)) > 127)
    return names, images, masks


def around_bright(photograph: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """The square of half the width around the spot of a disc's size that is brightest against what is around it.

    Looked for in the inner 70 % of the photograph (j, i, 3), as its rim glares. No truth is asked.
    """
    bright = photograph[..., 1:].astype(np.float32).mean(-1)
    height, width = bright.shape
    spot = cv2.GaussianBlur(bright, (0, 0), width / 42) - cv2.GaussianBlur(bright, (0, 0), width / 8.5)
    rows, columns = np.mgrid[:height, :width]
    rim = ((columns - width / 2) / (width / 2)) ** 2 + ((rows - height / 2) / (height / 2)) ** 2 > 0.49
    row, column = np.unravel_index(np.where(rim, -np.inf, spot).argmax(), spot.shape)
    half = width // 4
    top, left = (int(np.clip(at, half, n - half)) - half for at, n in ((row, height), (column, width)))
    return slice(top, top + 2 * half), slice(left, left + 2 * half)


def _largest(mask: Mask, count: int) -> Mask:
    numbered, found = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, numbered, range(1, found + 1))
    return np.isin(numbered, 1 + np.argsort(sizes)[::-1][:count]) if found else mask


def _otsu(image: Gray) -> float:
    return cv2.threshold((image * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)[0] / 255


def bright_ellipses(images: Sequence[Gray], pool: MaskPool) -> list[Mask]:
    """Optic discs: `bright_ellipse` of each."""
    return [bright_ellipse(image, pool) for image in images]


def bright_ellipse(image: Gray, pool: MaskPool) -> Mask:
    """Otsu's threshold of the smoothed image, the largest part, an ellipse around it."""
    smooth = cv2.GaussianBlur(image, (0, 0), 2)
    part = _largest(smooth > _otsu(smooth), pool.parts).astype(np.uint8)
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(outlines, key=len)
    if len(longest) >= 5:
        cv2.ellipse(part, cv2.fitEllipse(longest), 1, -1)
    return part.astype(bool)


def skull_ellipses(images: Sequence[Gray], pool: MaskPool) -> list[Mask]:
    """Fetal heads: of all ellipses of the prior the one on whose border the smoothed image is brightest against what
    lies within and around it."""
    smooth = torch.from_numpy(np.stack([cv2.GaussianBlur(image, (0, 0), 1) for image in images])).flatten(1).T
    masks = (pool.masks > 0.5).float()
    border = F.max_pool2d(masks, 3, 1, 1) + F.max_pool2d(-masks, 3, 1, 1)
    beside = F.max_pool2d(masks, 9, 1, 4) + F.max_pool2d(-masks, 9, 1, 4) - border
    means = [where.flatten(1) @ smooth / where.sum((1, 2, 3))[:, None] for where in (border, beside)]
    return [masks[best, 0].numpy() > 0.5 for best in (means[0] - means[1]).argmax(0).tolist()]


def dark_parts(images: Sequence[Gray], pool: MaskPool) -> list[Mask]:
    """Lungs: `dark_part` of each."""
    return [dark_part(image, pool) for image in images]


def dark_part(image: Gray, pool: MaskPool) -> Mask:
    """What is darker than Otsu's threshold, off the rim; opened, as many parts as the masks have, holes
    filled."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1)
    height, width = image.shape
    inside = np.zeros(image.shape, bool)
    inside[height // 10 : -height // 16, width // 10 : -width // 10] = True
    dark = inside & (smooth < _otsu(smooth[height // 8 : -height // 8, width // 8 : -width // 8]))
    return ndimage.binary_fill_holes(_largest(ndimage.binary_opening(dark), pool.parts))
