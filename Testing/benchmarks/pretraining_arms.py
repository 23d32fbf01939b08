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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.pretraining.pretrain import STILL, learn
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
STEPS, PRETRAINING_STEPS = 300, 480
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
class Arm:
    """before: how it was pretrained; varied: whether pretraining and training vary pose and intensities of images as
    `refseg train` does, or take them as they are."""

    before: Method | None = None
    reconstruction: bool = False
    varied: bool = False

    @property
    def augmentation(self) -> Augmentation:
        """Of pretraining and training."""
        return Augmentation() if self.varied else STILL


ARMS = {
    "random init": Arm(),
    "masked autoencoding": Arm("masked"),
    "T-AE + reconstruction": Arm("tiles", True),
    "T-AE": Arm("tiles"),
    "reconstruction only": Arm(reconstruction=True),
    "own augmentation": Arm(varied=True),
    "own augmentation, T-AE + reconstruction": Arm("tiles", True, varied=True),
    "own augmentation, masked autoencoding": Arm("masked", varied=True),
}
SHARES = (30, 10, 100)
COMBINED = tuple(ARMS)[-2:]  # not with all labels
JOBS = [(arm, share) for share in SHARES for arm in ARMS if share < 100 or arm not in COMBINED]


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


def unlabeled() -> list[Sample]:
    """All training images, for pretraining; without masks."""
    empty = np.zeros((1, SIZE, SIZE), np.uint16)
    return [Sample(s.name, s.image, empty, s.spacing) for s in labeled(100)]


def validation() -> list[Sample]:
    """The X-rays that choose epochs."""
    return [sample_of(p) for p in pictures("JSRT", "validation")]


def pretrained(arm: Arm, seed: int) -> tuple[dict[str, npt.NDArray], float]:
    """What an arm starts from, pretrained now if it was not yet, and how many seconds that took."""
    file = OUT / f"{arm.before}{'-varied' if arm.varied else ''}-{seed}.safetensors"
    if not file.exists():
        train = unlabeled()
        module, fitted, kept = learn(
            SPEC,
            train,
            validation(),
            method=arm.before,
            epochs=PRETRAINING_STEPS // steps_of(train, SPEC),
            seed=seed,
            augmentation=arm.augmentation,
            checkpoint=file.with_suffix(".checkpoint"),
        )
        weights = {name: value.cpu().numpy() for name, value in module.network.state_dict().items() if name in kept}
        file.with_suffix(".json").write_text(json.dumps({"seconds": fitted.seconds, "history": fitted.history}))
        save_file(weights, file)
    return load_file(file), json.loads(file.with_suffix(".json").read_text())["seconds"]


def trained(name: str, share: int, seed: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The segmenter of an arm, and how its training went."""
    arm, train = ARMS[name], labeled(share)
    weights, before = pretrained(arm, seed) if arm.before else (None, 0.0)
    segmenter = started(build_segmenter, SPEC, seed, weights, whole=True)
    place = OUT / f"{name} {share} {seed}.checkpoint"
    fitted = train_segmenter(
        ReconstructingSegmenter(segmenter, SPEC, seed) if arm.reconstruction else segmenter,
        SPEC,
        train,
        validation(),
        epochs=STEPS // steps_of(train, SPEC),
        seed=seed,
        augmentation=arm.augmentation,
        loss=ReconstructingSegmenter.loss if arm.reconstruction else None,
        checkpoint=place,
    )
    told = {"labels": len(train), "validation": fitted.score, "seconds": fitted.seconds, "seconds before": before}
    return segmenter.eval(), told


def run_arm(name: str, share: int, seed: int) -> dict[str, Any]:
    """Train and test an arm; one line of the results."""
    segmenter, told = trained(name, share, seed)
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
    """Append a line; its checkpoint is no longer needed."""
    with (OUT / "results.jsonl").open("a") as file:
        file.write(json.dumps(row | {"when": time.strftime("%Y-%m-%d %H:%M")}) + "\n")
    (OUT / f"{row['arm']} {row['share']} {row['seed']}.checkpoint").unlink(missing_ok=True)
