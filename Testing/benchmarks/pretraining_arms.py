"""One arm of bench_pretraining: pretrain where it does, train on some of the labels of JSRT, test under everything.

Everything any arm sees of a patient that tests is the test itself. Who is who: RefSegLib/training/split.py, 119 of JSRT
train, 24 validate, 57 test. Pretraining sees the 119 images that train, without masks, and the 24 that validate choose
its epoch; labels are of the first 10, 30 or 100 % of the 119 by hash of the patient; the 24 choose the epoch of
training in every arm. Montgomery and Shenzhen are seen by nothing but the test, all 80 and 400 of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.pretraining.pretrain import learn
from RefSegLib.pretraining.pretrained import Method
from RefSegLib.pretraining.reconstruction import ReconstructingSegmenter
from RefSegLib.quality.corruptions import ALL, corrupt, moved
from RefSegLib.quality.metrics import dice
from RefSegLib.training.augment import Augmentation
from RefSegLib.training.batches import steps_of
from RefSegLib.training.cases import Sample
from RefSegLib.training.fit import fast_precision
from RefSegLib.training.segmenter import train_segmenter
from RefSegLib.training.split import Role, patient_of
from RefSegLib.training.train import started
from safetensors.numpy import load_file, save_file
from xray_data import ROOT, Picture, lungs

OUT = Path(os.environ.get("REFSEG_OUT", ROOT / "out")) / "bench-pretraining"
SIZE = 72
STEPS, PRETRAINING_STEPS = 300, 1200
STILL = Augmentation(0.0, 0.0, 0.0, 0.0)
SPEC = SegmenterSpec(
    name="lungs-transfer",
    dimensions=2,
    channels=("X-ray",),
    labels=(Label(value=1, name="lungs", color=(0, 0.6, 1)),),
    spacing=(0, 1, 1),
    patch=(1, SIZE, SIZE),
    aligned=False,
    network=Network(name="unet", arguments={"filters": [8, 16, 32, 64]}),
)


@dataclass(frozen=True)
class Task:
    """What the arms learn. unlabeled: the samples pretraining learns from; validation: those that choose epochs; both
    read when they are asked for. steps: of training and of pretraining."""

    name: str
    spec: SegmenterSpec
    steps: int
    before: int
    unlabeled: Callable[[], list[Sample]]
    validation: Callable[[], list[Sample]]

    def file(self, what: str) -> Path:
        """Where something of this task is kept."""
        return OUT / (what if self.name == "xrays" else f"{self.name}-{what}")


@dataclass(frozen=True)
class Arm:
    """before: how it was pretrained; varied: whether training varies pose and intensities of images as `refseg train`
    does, or takes them as they are; seen: whether it trains on the corruptions it is tested under."""

    before: Method | None = None
    reconstruction: bool = False
    varied: bool = False
    seen: bool = False


ARMS = {
    "random init": Arm(),
    "masked autoencoding": Arm("masked"),
    "T-AE + reconstruction": Arm("tiles", True),
    "T-AE": Arm("tiles"),
    "reconstruction only": Arm(reconstruction=True),
    "own augmentation": Arm(varied=True),
    "own augmentation, T-AE + reconstruction": Arm("tiles", True, varied=True),
    "own augmentation, masked autoencoding": Arm("masked", varied=True),
    "ceiling": Arm(seen=True),
    "ceiling, own augmentation": Arm(seen=True, varied=True),
}
SHARES = (30, 10, 100)
JOBS = [(arm, share) for share in SHARES for arm in ARMS if share == 30 or not ARMS[arm].seen]


@lru_cache(maxsize=4)
def pictures(site: str, role: Role | None) -> tuple[Picture, ...]:
    """The X-rays of a hospital, of one role or all, those of JSRT ordered by hash of the patient."""
    found = [p for p in lungs(site, SIZE) if role in (None, p.role)]
    return tuple(sorted(found, key=lambda p: hashlib.sha256(patient_of(p.name).encode()).hexdigest()))


def sample_of(picture: Picture) -> Sample:
    """An X-ray as the network sees it."""
    image = SPEC.normalization(picture.image[None, None])
    return Sample(picture.name, image, picture.mask[None].astype(np.uint16), (1.0, 1.0, 1.0))


def labeled(share: int) -> list[Sample]:
    """The training images whose labels an arm with `share` % of them gets."""
    everyone = pictures("JSRT", "train")
    return [sample_of(p) for p in everyone[: round(len(everyone) * share / 100)]]


def with_corrupted(share: int) -> list[Sample]:
    """Those of `labeled`, and each of them under each of the 17 corruptions at severity 5, drawn otherwise than in the
    tests. For the ceiling alone: what an arm that knows the tests beforehand comes to."""
    everyone = pictures("JSRT", "train")
    some = everyone[: round(len(everyone) * share / 100)]
    seeds = range(10_000, 10_000 + len(some))
    bad = [
        sample_of(Picture(p.name, corrupt(p.image, name, 5, seed), moved(p.mask, name, 5, seed)))
        for name in ALL
        for p, seed in zip(some, seeds, strict=True)
    ]
    return labeled(share) + bad


def unlabeled() -> list[Sample]:
    """All training images, for pretraining; without masks."""
    empty = np.zeros((1, SIZE, SIZE), np.uint16)
    return [Sample(s.name, s.image, empty, s.spacing) for s in labeled(100)]


def validation() -> list[Sample]:
    """The X-rays that choose epochs."""
    return [sample_of(p) for p in pictures("JSRT", "validation")]


XRAYS = Task("xrays", SPEC, STEPS, PRETRAINING_STEPS, unlabeled, validation)


def pretrained(task: Task, arm: Arm, seed: int) -> tuple[dict[str, npt.NDArray], float]:
    """What an arm starts from, pretrained now if it was not yet, and how many seconds that took."""
    file = task.file(f"{arm.before}-{seed}.safetensors")
    if not file.exists():
        train = task.unlabeled()
        module, fitted, kept = learn(
            task.spec,
            train,
            task.validation(),
            method=arm.before,
            epochs=task.before // steps_of(train, task.spec),
            seed=seed,
            checkpoint=file.with_suffix(".checkpoint"),
        )
        weights = {name: value.cpu().numpy() for name, value in module.network.state_dict().items() if name in kept}
        file.with_suffix(".json").write_text(json.dumps({"seconds": fitted.seconds, "history": fitted.history}))
        save_file(weights, file)
        file.with_suffix(".checkpoint").unlink(missing_ok=True)
    return load_file(file), json.loads(file.with_suffix(".json").read_text())["seconds"]


def trained(task: Task, name: str, train: list[Sample], seed: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The segmenter of an arm that learns from `train`, and how its training went."""
    arm, spec = ARMS[name], task.spec
    weights, before = pretrained(task, arm, seed) if arm.before else (None, 0.0)
    segmenter = started(build_segmenter, spec, seed, weights, whole=True)
    fitted = train_segmenter(
        ReconstructingSegmenter(segmenter, spec, seed) if arm.reconstruction else segmenter,
        spec,
        train,
        task.validation(),
        epochs=task.steps // steps_of(train, spec),
        seed=seed,
        augmentation=Augmentation() if arm.varied else STILL,
        loss=ReconstructingSegmenter.loss if arm.reconstruction else None,
        checkpoint=task.file(f"{name} {len(train)} {seed}.checkpoint"),
    )
    task.file(f"{name} {len(train)} {seed}.checkpoint").unlink(missing_ok=True)
    return segmenter.eval(), {"validation": fitted.score, "seconds": fitted.seconds, "seconds before": before}


def run_arm(name: str, share: int, seed: int) -> dict[str, Any]:
    """Train and test an arm; one line of the results."""
    train = with_corrupted(share) if ARMS[name].seen else labeled(share)
    segmenter, told = trained(XRAYS, name, train, seed)
    told["labels"] = len(labeled(share))
    found = tested(segmenter, "test")
    told["validation, corrupted"] = tested(segmenter, "validation", (5,))
    for site in ("Montgomery", "Shenzhen"):
        found[site] = mean_dice(segmenter, pictures(site, None))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"arm": name, "share": share, "seed": seed, **told, "found": found, "MB": memory}


def tested(segmenter: torch.nn.Module, role: Role, severities: tuple[int, ...] = (1, 2, 3, 4, 5)) -> dict[str, float]:
    """Mean Dice on JSRT patients of a role: "clean", and "<corruption> <severity>" for all of them."""
    found = {"clean": mean_dice(segmenter, pictures("JSRT", role))}
    for name in ALL:
        for severity in severities:
            found[f"{name} {severity}"] = mean_dice(segmenter, bad(role, name, severity))
    return found


@lru_cache(maxsize=len(ALL) * 5)
def bad(role: Role, name: str, severity: int) -> tuple[Picture, ...]:
    """The X-rays of JSRT of a role corrupted; a mask moves where the corruption moves what is seen."""
    return tuple(
        Picture(p.name, corrupt(p.image, name, severity, number), moved(p.mask, name, severity, number))
        for number, p in enumerate(pictures("JSRT", role))
    )


@torch.inference_mode()
def mean_dice(segmenter: torch.nn.Module, everyone: tuple[Picture, ...]) -> float:
    """The mean Dice over X-rays."""
    scores = []
    for start in range(0, len(everyone), 32):
        some = everyone[start : start + 32]
        images = torch.from_numpy(np.stack([sample_of(p).image for p in some]))
        with fast_precision(torch.device("cpu")):
            masks = segmenter(images).argmax(1)[:, 0].bool().numpy()
        scores += [dice(mask, p.mask) for mask, p in zip(masks, some, strict=True)]
    return round(float(np.mean(scores)), 5)


def results() -> list[dict[str, Any]]:
    """The lines written so far."""
    file = OUT / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep(row: dict[str, Any]) -> None:
    """Append a line."""
    with (OUT / "results.jsonl").open("a") as file:
        file.write(json.dumps(row | {"when": time.strftime("%Y-%m-%d %H:%M")}) + "\n")
