"""From a folder of images without masks to weights that a segmenter starts from."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import prepare
from RefSegLib.inference.region import find_regions
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.pretraining.masked import MaskedAutoencoder
from RefSegLib.pretraining.pretrained import Method, check_free, write_pretrained
from RefSegLib.pretraining.tile_autoencoder import TileAutoencoder
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.augment import Augmentation, random_looks
from RefSegLib.training.batches import batch_of, patch_batches, steps_of
from RefSegLib.training.cases import Sample, kept_samples, sha256_of
from RefSegLib.training.fit import Fit, best_device, fast_precision, fit
from RefSegLib.training.report import Report
from RefSegLib.training.split import Role, patient_of, split_of
from RefSegLib.volume.io import case_name, read_image

log = logging.getLogger(__name__)

VARIED = Augmentation(looks=0.5)
UPRIGHT = Augmentation(0.0, 0.0, 0.0, VARIED.looks)  # for images that are compared
Batches = Callable[[int], Iterable[tuple[torch.Tensor, ...]]]


def pretrain(
    spec: SegmenterSpec,
    images: Sequence[Path],
    home: Path,
    *,
    name: str,
    method: Method = "tiles",
    epochs: int,
    seed: int,
    progress: Progress = SILENT,
) -> Path:
    """Learn from images what a segmenter of `spec` can start from, and store it as `name`; returns its file.

    method: with the augmentation of training, tiles and the reconstruction branch were the steadier of two that hardly
    differ (docs/benchmarks.md).
    Patients are drawn by hash as for training: those that train are learned from, those that validate choose when to
    stop, and those that test are not looked at, so that scores stay true whoever is trained from it later. What was
    killed goes on where it was when it is started again with the same images and settings. A page with curves and
    pictures is left in home/reports.
    Raises BadInput for images that cannot be used (naming the file), a name that is taken, or a network that was made
    elsewhere; RefSegError if it breaks down; Cancelled if the user asked to stop.
    """
    if epochs < 1:
        raise BadInput(f"{epochs} epochs learn nothing; ask for at least 1.")
    check_free(home, name)
    roles = images_by_role(images)
    fingerprint = hashlib.sha256("\n".join(sorted(map(sha256_of, images))).encode()).hexdigest()
    recipe = json.dumps([spec.model_dump(mode="json"), fingerprint, method, epochs, seed])
    folder = home / "training" / f"pretraining-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    samples = read_pictures(roles, spec, folder / "cache", progress.part(0.0, 0.05))
    module, fitted, kept = learn(
        spec,
        samples["train"],
        samples["validation"],
        method=method,
        epochs=epochs,
        seed=seed,
        checkpoint=folder / "pretraining.checkpoint",
        progress=progress.part(0.05, 1.0),
    )
    file = write_pretrained(
        home,
        {key: value.cpu().numpy() for key, value in module.network.state_dict().items() if key in kept},
        name=name,
        method=method,
        network=spec.network.model_dump(mode="json"),
        channels=spec.channels,
        dimensions=spec.dimensions,
        spacing=spec.spacing,
        patch=spec.patch,
        normalization=spec.normalization,
        data={"fingerprint": fingerprint, "images": {role: len(files) for role, files in roles.items()}},
        settings={
            "epochs": epochs,
            "seed": seed,
            "batch": batch_of(spec),
            "augmentation": asdict(VARIED),
            "torch": torch.__version__,
            "seconds": round(fitted.seconds),
            "history": fitted.history,
        },
    )
    pictures = next(iter(batches_of(spec, module, seed)(samples["validation"], UPRIGHT)(0)))
    _report(name, method, module, fitted, pictures, roles).write(home / "reports" / f"pretrained-{name}")
    shutil.rmtree(folder, ignore_errors=True)
    progress(1.0, f"{name} is ready")
    return file


def learn(
    spec: SegmenterSpec,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    *,
    method: Method,
    epochs: int,
    seed: int,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[nn.Module, Fit, set[str]]:
    """Train the network of `spec` on images alone (labels of samples are not looked at but for where patches lie).

    Poses vary, and the network sees the intensities varied as well but has to draw them as they were (denoising,
    Vincent et al., ICML 2008): lungs of corrupted validation images, tiles and reconstruction, Dice 0.872 instead of
    0.862 with nothing varied and a third more steps; 0.834 with a random start.

    Returns the module, whose `network` holds the best weights (least loss on validation images), how it went, and the
    names of the weights of `network` that a segmenter starts from.
    """
    device = best_device()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = (MaskedAutoencoder(spec) if method == "masked" else TileAutoencoder(build_segmenter(spec), spec)).to(
            device
        )
    told = batches_of(spec, module, seed)

    def loss_of(network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        with fast_precision(device):
            return network.loss(*(part.to(device) for part in batch))

    def validate(network: nn.Module) -> float:
        return -float(np.mean([float(loss_of(network, batch)) for batch in told(validation, UPRIGHT)(0)]))

    fitted = fit(
        module,
        told(train, VARIED),
        loss_of,
        validate,
        epochs=epochs,
        steps=steps_of(train, spec),
        pieces=batch_of(spec),
        check_every=max(1, epochs // 20),
        checkpoint=checkpoint,
        progress=progress,
    )
    return module, fitted, set(module.kept())


def batches_of(
    spec: SegmenterSpec, module: nn.Module, seed: int
) -> Callable[[Sequence[Sample], Augmentation], Batches]:
    """What the loss of `module` takes, of samples and how far they are varied: images, as they are seen, and what the
    method draws; the same for the same epoch."""

    def told(samples: Sequence[Sample], augmentation: Augmentation) -> Batches:
        batches = patch_batches(samples, spec, augmentation.mild(), seed)

        def of_epoch(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
            generator = torch.Generator().manual_seed(seed * 999_983 + epoch)
            for images, _ in batches(epoch):
                seen = random_looks(images, augmentation, generator)
                yield images, seen, *module.drawn_for(images, generator)

        return of_epoch

    return told


def images_by_role(images: Sequence[Path]) -> dict[Role, list[Path]]:
    """The images of the patients of each role. Raises BadInput if nobody is left to train or to validate on."""
    roles: dict[Role, list[Path]] = {"train": [], "validation": [], "test": []}
    for file in images:
        roles[split_of(patient_of(case_name(file)))].append(file)
    for role in ("train", "validation"):
        if not roles[role]:
            raise BadInput(
                f"Of the {len(images)} images none belongs to a patient that falls to {role}: patients are drawn by a "
                "hash of their name (65 % train, 15 % validation, 20 % test). Add more patients."
            )
    return roles


def read_pictures(
    roles: dict[Role, list[Path]], spec: SegmenterSpec, cache: Path, progress: Progress = SILENT
) -> dict[str, list[Sample]]:
    """The images of the patients that train and validate as the network sees them, with empty labels."""
    samples: dict[str, list[Sample]] = {"train": [], "validation": []}
    pairs = [(role, file) for role in samples for file in roles[role]]
    for number, (role, file) in enumerate(pairs):
        progress(number / len(pairs), f"reading {file.name}")
        recipe = f"picture {sha256_of(file)} {spec.model_dump_json()}"
        samples[role] += kept_samples(recipe, cache, lambda file=file: load_pictures(file, spec))
    return samples


def load_pictures(file: Path, spec: SegmenterSpec) -> list[Sample]:
    """An image as the network sees it, one sample per region of the model, with empty labels.

    Raises BadInput, naming the file, if it cannot be segmented at all or has the wrong number of channels.
    """
    volume = read_image(file)
    volume.check(f"'{file}'")
    if volume.channels != len(spec.channels):
        raise BadInput(
            f"'{file}' has {volume.channels} channels, but model '{spec.name}' takes {len(spec.channels)} "
            f"({', '.join(spec.channels)})."
        )
    return [
        Sample(
            case_name(file),
            prepare(volume, region.grid, spec),
            np.zeros(region.grid.shape, np.uint16),
            region.grid.spacing,
        )
        for region in find_regions(volume, spec)
    ]


def _report(
    name: str,
    method: Method,
    module: nn.Module,
    fitted: Fit,
    batch: tuple[torch.Tensor, ...],
    roles: dict[Role, list[Path]],
) -> Report:
    """Curves, and validation images beside what was drawn of them."""
    said = {"tiles": "tile-wise autoencoder", "masked": "masked autoencoding"}[method]
    counts = {role: len(files) for role, files in roles.items()}
    report = Report(f"Pretrained: {name}")
    report.text(
        f"{said}; {counts['train']} images learned from, {counts['validation']} to choose when to stop, "
        f"{counts['test']} of test patients not looked at. Best loss on the second: {-fitted.score:.4f}."
    )
    epochs = [entry["epoch"] for entry in fitted.history]
    report.curve(
        "Loss",
        "epoch",
        "loss",
        {
            "training": (epochs, [entry["loss"] for entry in fitted.history]),
            "validation": (epochs, [-entry["score"] for entry in fitted.history]),
        },
    )
    with torch.inference_mode():
        shown = module.shown(*(part[:4].to(best_device()) for part in batch))
    for number in range(len(batch[0][:4])):
        report.pictures(
            f"Validation image {number + 1}",
            [(what, _slice(images[number]), []) for what, images in shown.items()],
        )
    return report


def _slice(image: torch.Tensor) -> np.ndarray:
    """The middle slice (j, i) of the first channel of (C, k, j, i)."""
    return image[0, image.shape[1] // 2].float().cpu().numpy()
