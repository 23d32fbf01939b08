"""The arms of bench_noisy: what is trained on what, and what is measured.

All arms of a set: the same pictures, network, starting weights, poses, looks, steps and choice of the best weights on
validation patients, whose masks are as wrong as those that train. Test masks are the true ones. No arm is told how many
masks are wrong, but the one that says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rater_data import brains, heads, vessels
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Network, SegmenterSpec
from RefSegLib.noisy.co_teaching import CoTeaching
from RefSegLib.noisy.corrections import corrected
from RefSegLib.noisy.mask_noise import Corrupted, corrupt_some
from RefSegLib.noisy.pixels import doubted
from RefSegLib.noisy.raters import RatedSample, consensus
from RefSegLib.noisy.segmenter import train_noisy_segmenter
from RefSegLib.noisy.t_loss import TLoss
from RefSegLib.quality.metrics import dice
from RefSegLib.training.batches import steps_of
from RefSegLib.training.cases import Sample
from RefSegLib.training.segmenter import predict, train_segmenter
from RefSegLib.training.train import started
from xray_data import lungs

ROOT = Path(__file__).parents[2]
OUT = Path(os.environ.get("REFSEG_OUT", ROOT / "out")) / "bench-noisy"
RESULTS = OUT / "results.jsonl"

CLEAN, CLEAN_T, PLAIN, T_LOSS, CO, CO_TOLD = (
    "clean oracle",
    "clean oracle, T-Loss",
    "plain",
    "T-Loss",
    "co-teaching",
    "co-teaching, told the rate",
)
# The level that weighs masks, and how much Dice counts beside T-Loss.
LEVELS = {
    "pixel only": ("pixel", 0.0),
    "image only": ("image", 0.0),
    "both": ("both", 0.0),
    "image, with Dice": ("image", 1.0),
}
SINGLE, ALL = "one rater: ", "all raters: "
STRENGTH = 0.9
# What is put in: kinds of noise as often each, None for all of them.
NOISE = {"mixed": None, "dilation": ["dilation"], "too small": ["erosion", "missing"]}
MOST = {"train": 120, "validation": 24, "test": 100}
FEW = "few lungs"
FEWER = 30  # images that train of this set
FILTERS = [8, 16, 32, 64]
EPOCHS = {"lungs": 60, FEW: 240, "heads": 60, "brains": 150, "vessels": 150}  # 480 steps of lungs and heads


@dataclass(frozen=True)
class Job:
    """One arm. noise: share of masks made wrong; kinds: of noise, or "raters" for what people really drew."""

    set: str
    noise: float
    kinds: str
    arm: str
    seed: int = 0

    @property
    def key(self) -> str:
        """What tells it from others in the results."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Pictures:
    """Pictures of one role: images (j, i), true masks, masks given (raters, j, i), and the noise put in, by number."""

    names: list[str]
    images: list[npt.NDArray[np.float32]]
    truth: list[npt.NDArray[np.bool_]]
    given: list[npt.NDArray[np.uint16]]
    noise: list[Corrupted] | None = None


def jobs() -> Iterator[Job]:
    """All arms, the most telling first."""
    raters = [who + arm for arm in (PLAIN, "image, with Dice", "both", "image only") for who in (SINGLE, ALL)]
    first, later = (PLAIN, T_LOSS, "image only", "both", "image, with Dice"), (CO, "pixel only", CO_TOLD)
    clean = (CLEAN, CLEAN_T)
    for arm in clean:
        yield Job("lungs", 0.0, "mixed", arm)
    for arm in (*first, *later):
        yield Job("lungs", 0.5, "mixed", arm)
    for arm in (*first, *later):
        yield Job("lungs", 0.5, "dilation", arm)
    for arm in (*first, *clean):
        yield Job("lungs", 0.0 if arm in clean else 0.5, "mixed", arm, 1)
    for arm in first:
        yield Job("lungs", 0.5, "dilation", arm, 1)
    for arm in (*clean, *first):
        yield Job(FEW, 0.0 if arm in clean else 0.5, "mixed" if arm in clean else "dilation", arm)
    for arm in raters[:4]:
        yield Job("vessels", 1.0, "raters", arm)
    for share in (0.7, 0.3):
        for arm in first:
            yield Job("lungs", share, "mixed", arm)
    for arm in (CLEAN, *first):
        yield Job("heads", 0.0 if arm == CLEAN else 0.5, "mixed", arm)
    for arm in raters[4:]:
        yield Job("vessels", 1.0, "raters", arm)
    for arm in first:
        yield Job("lungs", 0.5, "too small", arm)
    for seed in (0, 1):
        for arm in raters:
            yield Job("brains", 1.0, "raters", arm, seed)
    for arm in later:
        for share in (0.3, 0.7):
            yield Job("lungs", share, "mixed", arm)
        yield Job(FEW, 0.5, "dilation", arm)
        yield Job("heads", 0.5, "mixed", arm)
        yield Job("lungs", 0.5, "mixed", arm, 1)


def run(job: Job) -> dict[str, Any]:
    """Train and measure one arm."""
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)  # dropout draws from it
    began = time.process_time()
    data = {role: pictures(job, role) for role in ("train", "validation", "test")}
    spec = spec_of(job, data["train"].images[0].shape)
    network = started(build_segmenter, spec, job.seed, None)
    train = [_rated(data["train"], n, spec) for n in range(len(data["train"].names))]
    validation = _samples(data["validation"], spec, true=job.arm in (CLEAN, CLEAN_T))
    options = {"epochs": EPOCHS[job.set], "seed": job.seed}
    arm = job.arm.removeprefix(SINGLE).removeprefix(ALL)
    if arm in LEVELS:
        level, overlap = LEVELS[arm]
        train_noisy_segmenter(network, spec, train, validation, level=level, overlap=overlap, **options)
    else:
        network = _peer(
            job, arm, network, spec, _samples(data["train"], spec, true=arm in (CLEAN, CLEAN_T)), validation, options
        )
    network.eval()
    found = {
        "test": _test(network, data["test"], spec),
        "validation": _test(network, data["validation"], spec),
        "patients": {role: len(one.names) for role, one in data.items()},
        "given": _mean_dice(data["train"]),
    }
    if data["train"].noise is not None:
        found["maps"] = _maps(network, train, data["train"], spec)
    return found | {
        "cpu": round(time.process_time() - began),
        "memory": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _peer(
    job: Job,
    arm: str,
    network: torch.nn.Module,
    spec: SegmenterSpec,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    options: dict[str, int],
) -> torch.nn.Module:
    """A network that takes the masks as they are, with another loss."""
    if arm in (T_LOSS, CLEAN_T):
        wrapped = TLoss(network)
        train_segmenter(wrapped, spec, train, validation, loss=TLoss.loss, **options)
        return wrapped.network
    if arm in (CO, CO_TOLD):
        second = started(build_segmenter, spec, job.seed + 100, None)
        told = {"keep": 1 - _wrong_share(job)} if arm == CO_TOLD else {}
        pair = CoTeaching(network, second, options["epochs"] * steps_of(train, spec), **told)
        train_segmenter(pair, spec, train, validation, loss=CoTeaching.loss, **options)
        return pair.first
    train_segmenter(network, spec, train, validation, **options)
    return network


def _wrong_share(job: Job) -> float:
    """The true share of wrong pixels of the masks that train: what no site knows."""
    return float(np.mean([one.changed.mean() for one in pictures(job, "train").noise]))


def spec_of(job: Job, shape: tuple[int, int]) -> SegmenterSpec:
    """The same small network for every arm of a set."""
    patch = (64, 64) if job.set == "vessels" else shape
    return SegmenterSpec(
        name=job.set.replace(" ", "-"),
        dimensions=2,
        channels=("gray",),
        labels=[{"value": 1, "name": job.set, "color": (1, 0, 0)}],
        spacing=(0, 0, 0),
        patch=(1, *patch),
        aligned=False,
        network=Network(name="unet", arguments={"filters": FILTERS, "dropout": 0.1}),
    )


def pictures(job: Job, role: str) -> Pictures:
    """The pictures of the patients of one role, with the masks this arm is given."""
    if job.set in ("lungs", FEW, "heads"):
        everybody = heads((48, 64)) if job.set == "heads" else lungs("JSRT", 48)
        most = FEWER if (job.set, role) == (FEW, "train") else MOST[role]
        chosen = [p for p in everybody if p.role == role][:most]
        truth = [p.mask for p in chosen]
        masks = {p.name: p.mask[None].astype(np.uint16) for p in chosen}
        seed = {"train": 1, "validation": 2, "test": 3}[role] + 10 * job.seed
        wrong = corrupt_some(masks, 0.0 if role == "test" else job.noise, STRENGTH, seed, NOISE[job.kinds])
        noise = [wrong[p.name] for p in chosen]
        given = [one.labels for one in noise]
        return Pictures([p.name for p in chosen], [p.image for p in chosen], truth, given, noise if job.noise else None)
    rated = [p for p in (brains((64, 64)) if job.set == "brains" else vessels((160, 160))) if p.role == role]
    given = [p.masks.astype(np.uint16) for p in rated]
    if job.arm.startswith(SINGLE):
        given = [g[[_lot(p.name, job.seed) % len(g)]] for p, g in zip(rated, given, strict=True)]
    truth = [consensus(p.masks.astype(np.uint16)) > 0 for p in rated]
    return Pictures([p.name for p in rated], [p.image for p in rated], truth, given)


def _lot(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def _prepared(image: npt.NDArray[np.float32], spec: SegmenterSpec) -> npt.NDArray[np.float32]:
    return spec.normalization(image[None, None])


def _rated(data: Pictures, number: int, spec: SegmenterSpec) -> RatedSample:
    given = data.given[number][:, None]
    raters = tuple(f"rater {n + 1}" for n in range(len(given)))
    return RatedSample(data.names[number], _prepared(data.images[number], spec), given, raters, (1.0, 1.0, 1.0))


def _samples(data: Pictures, spec: SegmenterSpec, *, true: bool) -> list[Sample]:
    masks = [t.astype(np.uint16) for t in data.truth] if true else [consensus(given) for given in data.given]
    return [
        Sample(name, _prepared(image, spec), mask[None], (1.0, 1.0, 1.0))
        for name, image, mask in zip(data.names, data.images, masks, strict=True)
    ]


def _test(network: torch.nn.Module, data: Pictures, spec: SegmenterSpec) -> float:
    """Mean Dice with the true masks."""
    return float(
        np.mean([dice(predict(network, s.image, spec) > 0, s.labels > 0) for s in _samples(data, spec, true=True)])
    )


def _mean_dice(data: Pictures) -> float:
    return float(np.mean([dice(consensus(g) > 0, t) for g, t in zip(data.given, data.truth, strict=True)]))


def _maps(network: torch.nn.Module, train: list[RatedSample], data: Pictures, spec: SegmenterSpec) -> dict[str, Any]:
    """How well the noise put in is found: pixels that were changed, masks that were changed, and how good the masks
    become once corrected."""
    changed = np.stack([one.changed for one in data.noise])
    kinds = np.array([one.kind for one in data.noise])
    result: dict[str, Any] = {}
    for level in ("pixel", "both"):
        believed = corrected(network, train, spec, level)
        flagged = np.stack([doubted(one.target, s.given)[0] for one, s in zip(believed, train, strict=True)])
        now = [dice(one.target[1, 0] > 0.5, truth) for one, truth in zip(believed, data.truth, strict=True)]
        result[level] = _precision_recall(flagged, changed) | {"masks": float(np.mean(now))}
    result["kinds"] = {kind: _precision_recall(flagged[kinds == kind], changed[kinds == kind]) for kind in set(kinds)}
    suspected = np.concatenate([one.suspected for one in believed])
    result["image"] = _precision_recall(suspected, changed.any((1, 2, 3)))
    seen = np.stack([predict(network, s.image, spec)[None] != s.given for s in train])[:, 0]
    result["prediction"] = _precision_recall(seen, changed)
    return result


def _precision_recall(flagged: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> dict[str, float]:
    hit = int((flagged & true).sum())
    return {"precision": hit / max(1, int(flagged.sum())), "recall": hit / max(1, int(true.sum()))}
