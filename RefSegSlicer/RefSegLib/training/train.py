"""From pairs of images and masks to a new model version: segmenter, synthesizer, calibrated reflection, scores."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import segment
from RefSegLib.inference.segmenter import Segmenter, TorchSegmenter, ready_segmenter
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.pretraining.pretrained import Pretrained
from RefSegLib.pretraining.reconstruction import ReconstructingSegmenter
from RefSegLib.progress import SILENT, Progress
from RefSegLib.quality.metrics import score
from RefSegLib.reflection.calibration import calibrate
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.synthesis.training import train_synthesizer
from RefSegLib.training.augment import Augmentation
from RefSegLib.training.batches import batch_of
from RefSegLib.training.cases import Case, Sample, by_role, cached_samples, fingerprint
from RefSegLib.training.fit import Fit, best_device, has_bfloat16
from RefSegLib.training.page import page_of
from RefSegLib.training.report import report_folder
from RefSegLib.training.segmenter import train_segmenter
from RefSegLib.training.split import Role
from RefSegLib.volume.io import read_image, read_labels

log = logging.getLogger(__name__)


def train(
    spec: SegmenterSpec,
    cases: Sequence[Case],
    store: ModelStore,
    *,
    init: ModelVersion | Pretrained | None = None,
    reconstruction: bool = False,
    epochs: int,
    seed: int,
    progress: Progress = SILENT,
) -> ModelVersion:
    """Train on the patients whose hash says so, validate and test on the others, and add a version to the store.

    init: a version to start from; layers of another shape (other labels) start anew. Or what pretraining left, which
    must fit as a whole. reconstruction: the encoder learns to draw the image as well (pretraining/reconstruction.py);
    nothing of that branch is stored. A page with curves and pictures is left in home/reports.
    A training that was killed goes on where it was when it is started again with the same data and settings, and comes
    to the same weights. The same seed gives the same weights on the same machine.

    Raises BadInput for data that cannot be trained on (naming the file), RefSegError if training breaks down,
    Cancelled if the user asked to stop.
    """
    if epochs < 1:
        raise BadInput(f"{epochs} epochs train nothing; ask for at least 1.")
    roles = by_role(cases)
    data = described(cases, roles)
    before = init if isinstance(init, Pretrained) else None
    version = None if isinstance(init, Pretrained) else init
    parent = f"{version.name}@{version.version}" if version else None
    origin = before.origin if before else parent
    recipe = json.dumps([spec.model_dump(mode="json"), data["fingerprint"], epochs, seed, origin, reconstruction])
    folder = workplace(store, recipe)
    samples = read_samples(roles, spec, folder / "cache", progress.part(0.0, 0.05))

    weights = before.weights if before else version and version.segmenter()
    segmenter = started(build_segmenter, spec, seed, weights, whole=before is not None)
    learning = ReconstructingSegmenter(segmenter, spec, seed) if reconstruction else segmenter
    segmenter_fit = train_segmenter(
        learning,
        spec,
        samples["train"],
        samples["validation"],
        epochs=epochs,
        seed=seed,
        loss=ReconstructingSegmenter.loss if reconstruction else None,
        checkpoint=folder / "segmenter.checkpoint",
        progress=progress.part(0.05, 0.8),
    )
    made = finish(
        spec,
        segmenter,
        segmenter_fit,
        samples,
        roles,
        store,
        data=data,
        settings={
            "augmentation": asdict(Augmentation()),
            "reconstruction": reconstruction,
            "pretrained": before and before.about.model_dump(mode="json", exclude={"settings": {"history"}}),
        },
        parent=parent,
        epochs=epochs,
        seed=seed,
        folder=folder,
        progress=progress.part(0.8, 1.0),
        init=version,
    )
    page_of(made, segmenter, segmenter_fit, samples["validation"]).write(report_folder(store, made))
    return made


def finish(
    spec: SegmenterSpec,
    segmenter: nn.Module,
    segmenter_fit: Fit,
    samples: dict[str, list[Sample]],
    roles: dict[Role, list[Case]],
    store: ModelStore,
    *,
    data: dict[str, Any],
    settings: dict[str, Any],
    parent: str | None,
    epochs: int,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    init: ModelVersion | None = None,
    drawn: bool = True,
) -> ModelVersion:
    """From a trained segmenter to a version in the store: train its synthesizer, calibrate reflection, score, add.

    segmenter: (n, C, k, j, i) to logits, as build_segmenter makes it; segmenter_fit: how its training went.
    samples: of "train" and "validation", with the masks the synthesizer and reflection learn from; roles: the cases of
    these and of "test" that are scored, against the masks in their files; a role without cases has no scores.
    data, settings: what the version records, settings beside what is recorded of every training; parent: what it comes
    from. epochs: those of the segmenter, of which the synthesizer gets a third; init: a version whose synthesizer is
    started from. folder: checkpoints of a training that goes on after a kill; it is removed once the version stands.
    drawn: whether people drew the masks; else the version estimates no Dice, as it would be that with its own labels,
    until `refseg calibrate` is given some.
    """
    synthesizer = started(build_synthesizer, spec, seed + 1, init and init.synthesizer())
    synthesizer_fit = train_synthesizer(
        synthesizer,
        spec,
        samples["train"],
        samples["validation"],
        epochs=max(1, epochs // 3),
        seed=seed + 1,
        checkpoint=folder / "synthesizer.checkpoint",
        progress=progress.part(0.0, 0.5),
    )

    device = best_device()
    runner = ready_segmenter(spec, segmenter, str(device))  # calibration asks for thousands of predictions
    if isinstance(runner, TorchSegmenter) and runner.reason:
        log.warning(runner.reason)
    reflection = calibrate(
        samples["validation"], runner, Synthesizer(spec, synthesizer), seed=seed, progress=progress.part(0.5, 0.8)
    )
    if not drawn:
        reflection = reflection.model_copy(update={"estimate": None, "estimate_first": None})
    scores = {
        role: measure(runner, roles.get(role, []), progress.part(start, start + 0.1))
        for role, start in (("validation", 0.8), ("test", 0.9))
    }
    version = store.add(
        spec,
        arrays(segmenter),
        arrays(synthesizer),
        parent=parent,
        data=data,
        settings={
            "epochs": epochs,
            "seed": seed,
            "batch": batch_of(spec),
            "device": device.type,
            "bfloat16": has_bfloat16(device),
            "torch": torch.__version__,
            "seconds": round(segmenter_fit.seconds + synthesizer_fit.seconds),
            "history": {"segmenter": segmenter_fit.history, "synthesizer": synthesizer_fit.history},
        }
        | settings,
        scores=scores | {"synthesizer": {"validation": {"ssim": round(synthesizer_fit.score, 4)}}},
        reflection=reflection.model_dump(mode="json"),
    )
    shutil.rmtree(folder, ignore_errors=True)
    progress(1.0, f"{version.name} {version.version} is ready")
    return version


def measure(segmenter: Segmenter, cases: Sequence[Case], progress: Progress = SILENT) -> dict[str, dict[str, float]]:
    """Mean Dice, hd95 and assd (mm) of every label on the grids of the images, and the mean Dice over all labels.

    A case where either mask of a label is empty has no distance and is left out of that mean.
    """
    collected: dict[str, dict[str, list[float]]] = {}
    for done, case in enumerate(cases):
        progress(done / len(cases), f"testing on {case.name}")
        result = segment(read_image(case.image), segmenter)
        names = {label.value: label.name for label in result.names}
        for value, entry in score(result.labels, read_labels(case.labels), names).items():
            for metric, number in entry.items():
                if number is not None:
                    collected.setdefault(names[value], {}).setdefault(metric, []).append(number)
    scores = {
        name: {metric: round(float(np.mean(values)), 4) for metric, values in metrics.items()}
        for name, metrics in collected.items()
    }
    if scores:
        scores["mean"] = {"dice": round(float(np.mean([entry["dice"] for entry in scores.values()])), 4)}
    return scores


def described(cases: Sequence[Case], roles: dict[Role, list[Case]]) -> dict[str, Any]:
    """What a version records about the data it learned from."""
    return {
        "fingerprint": fingerprint(cases),
        "cases": {role: len(some) for role, some in roles.items()},
        "patients": {role: len({case.patient for case in some}) for role, some in roles.items()},
    }


def workplace(store: ModelStore, recipe: str) -> Path:
    """Where a training keeps what it needs to go on after it was killed: one folder per recipe."""
    return Path(store.home) / "training" / hashlib.sha256(recipe.encode()).hexdigest()[:16]


def read_samples(
    roles: dict[Role, list[Case]], spec: SegmenterSpec, cache: Path, progress: Progress = SILENT
) -> dict[str, list[Sample]]:
    """The samples of the patients that train and that validate."""
    samples: dict[str, list[Sample]] = {"train": [], "validation": []}
    pairs = [(role, case) for role in samples for case in roles[role]]
    for number, (role, case) in enumerate(pairs):
        progress(number / len(pairs), f"reading {case.name}")
        samples[role] += cached_samples(case, spec, cache)
    return samples


def started(
    build: Callable[[SegmenterSpec], nn.Module],
    spec: SegmenterSpec,
    seed: int,
    weights: Mapping[str, npt.NDArray] | None,
    whole: bool = False,
) -> nn.Module:
    """A network with seeded random weights, or with those of `weights` that fit; all of them must if `whole`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build(spec)
    own = module.state_dict()
    fitting = {
        name: torch.from_numpy(np.array(value))
        for name, value in (weights or {}).items()
        if name in own and own[name].shape == value.shape
    }
    if weights and whole and len(fitting) < len(weights):
        raise BadInput(
            f"What was pretrained is of another network than that of model '{spec.name}': "
            f"{len(weights) - len(fitting)} of its layers do not fit. Network, dimensions, channels and "
            "patch must be those of the pretraining."
        )
    if weights and not fitting:
        raise BadInput("The model to start from has another network; not one of its layers fits this specification.")
    module.load_state_dict(own | fitting)
    return module.to(best_device())


def arrays(module: nn.Module) -> dict[str, npt.NDArray]:
    """The weights of a network, as they are stored."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
