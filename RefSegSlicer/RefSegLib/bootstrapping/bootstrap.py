"""From images without a single mask to a model version: translation, pseudo labels, rounds of segmenters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from RefSegLib.bootstrapping.cyclegan import GanSettings, Translated, train_cyclegan
from RefSegLib.bootstrapping.mask_pool import MaskPool, ellipse_pool, file_pool, framed
from RefSegLib.bootstrapping.mask_vae import MaskVae, train_mask_vae
from RefSegLib.bootstrapping.pictures import Picture, gray, read_pictures, spec_of, stacked
from RefSegLib.bootstrapping.rounds import Rounds, RoundSettings, bootstrap_rounds, shaped, starting_labels
from RefSegLib.bootstrapping.selection import chosen, found_masks
from RefSegLib.bootstrapping.shape_prior import EllipsePrior
from RefSegLib.bootstrapping.template import Template, match, prominence
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.batches import steps_of
from RefSegLib.training.cases import Case, Sample, sha256_of
from RefSegLib.training.report import Report, report_folder
from RefSegLib.training.split import Role
from RefSegLib.training.train import described, finish, workplace
from RefSegLib.volume.io import write_labels
from RefSegLib.volume.resample import resample_labels
from RefSegLib.volume.volume import LabelMap

VAE_STEPS = 800
SHOWN = 12  # pictures in the report
AGAINST = "pseudo labels of this training; nobody has checked them"


def bootstrap(
    images: Sequence[Path],
    shapes: EllipsePrior | Sequence[Path],
    store: ModelStore,
    *,
    name: str,
    label: str,
    size: int = 64,
    gan: GanSettings = GanSettings(),  # noqa: B008 (a frozen value)
    rounds: RoundSettings = RoundSettings(),  # noqa: B008 (a frozen value)
    seed: int = 0,
    progress: Progress = SILENT,
) -> ModelVersion:
    """Learn to segment one structure in flat images that have no masks, and add a version to the store.

    shapes: an ellipse prior, or the files of masks that belong to other images (of another site, say). label: what the
    structure is called; size: pixels along the longer side of what the networks see. Test patients are left alone.
    The scores of the version are against its own pseudo labels, as nothing else is there, and say so. Pseudo labels,
    pictures and curves are in the folder reports/name-version of the store.

    A training that was killed goes on where it was when it is started again with the same files and settings.
    Raises BadInput for images or shapes that cannot be used, RefSegError if training breaks down, Cancelled if the user
    asked to stop.
    """
    spec = spec_of(images, name, label, size)
    frame = spec.patch[1:]
    prior = isinstance(shapes, EllipsePrior)
    pool = ellipse_pool(shapes, frame, seed) if prior else file_pool(shapes, frame)
    told: dict[str, Any] = {"prior": shapes.model_dump()} if prior else {"masks": sorted(map(sha256_of, shapes))}
    settings = {"method": "bootstrap", "gan": asdict(gan), "rounds": asdict(rounds), "scores against": AGAINST} | told
    hashes = sorted(sha256_of(file) for file in images)
    folder = workplace(store, json.dumps([spec.model_dump(mode="json"), settings, hashes, seed]))
    pictures = read_pictures(images, spec, progress.part(0.0, 0.04))
    seen = stacked(pictures, frame)
    validates = torch.tensor([picture.role == "validation" for picture in pictures])

    vae = train_mask_vae(pool, frame, steps=VAE_STEPS, seed=seed, progress=progress.part(0.04, 0.08))
    translated, found, template = _translation(
        gray(seen), validates, pool, vae, gan, seed, folder, progress.part(0.08, 0.55)
    )
    done = bootstrap_rounds(
        spec,
        seen,
        validates,
        starting_labels(found, template, pool),
        vae,
        pool,
        rounds,
        template.kind,
        seed=seed,
        folder=folder,
        progress=progress.part(0.55, 0.85),
    )
    last = done.last
    kept = [chosen(last.quality, part, rounds.kept[-1]) for part in (~validates, validates)]
    roles: dict[Role, list[Case]] = {"train": [], "validation": [], "test": []}
    samples: dict[str, list[Sample]] = {"train": [], "validation": []}
    for picture, labels, good in zip(pictures, last.labels, kept[0] | kept[1], strict=True):
        if not good:
            continue
        labeled = _labeled(picture, labels[0].numpy())
        file = folder / "labels" / f"{picture.sample.name}.nii.gz"
        write_labels(resample_labels(LabelMap(labeled.labels, picture.grid), picture.whole), file)
        samples[picture.role].append(labeled)
        roles[picture.role].append(Case(picture.sample.name, picture.file, file))
    version = finish(
        spec,
        done.segmenters[-1],
        done.fits[-1],
        samples,
        roles,
        store,
        data=described([*roles["train"], *roles["validation"]], roles) | {"images": len(images), "labels": AGAINST},
        settings=settings | {"translation": translated.history, "border": template.kind, "labels": done.history},
        parent=None,
        epochs=max(3, 3 * rounds.steps // steps_of(samples["train"], spec)),
        seed=seed,
        folder=folder / "finish",
        progress=progress.part(0.85, 1.0),
        drawn=False,
    )
    place = report_folder(store, version)
    _report(version, pictures, seen, done, translated).write(place)
    shutil.copytree(folder / "labels", place / "labels", dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return version


def _translation(
    images: torch.Tensor,
    validates: torch.Tensor,
    pool: MaskPool,
    vae: MaskVae,
    settings: GanSettings,
    seed: int,
    folder: Path,
    progress: Progress,
) -> tuple[Translated, torch.Tensor, Template]:
    """Of a translation of half the steps and one of all the one whose masks have the more prominent borders, what it
    finds in all images, and what agrees with it.

    How long is best differs: a long translation matches the sizes of the masks, which is right where they come from a
    prior and wrong where those of another site are smaller (lungs: .87 after 350 steps, .83 after 700; discs .75 and
    .83). Borders told which, on all three sets.
    """
    best: tuple[float, Translated, torch.Tensor, Template] | None = None
    for steps, low, high in ((settings.steps // 2, 0.0, 0.33), (settings.steps, 0.33, 1.0)):
        translated = train_cyclegan(
            images[~validates],
            images[validates],
            pool,
            vae,
            replace(settings, steps=steps),
            seed=seed,
            checkpoint=folder / f"cyclegan-{steps}.checkpoint",
            progress=progress.part(low, high),
        )
        found = found_masks(translated.gan, images, seed=seed)
        template = match(images, found, pool, seed)
        stands = float(prominence(images, shaped(found, pool), pool, template.kind, seed).mean())
        if best is None or stands > best[0]:
            best = stands, translated, found, template
    return best[1:]


def _labeled(picture: Picture, labels: np.ndarray) -> Sample:
    """The picture's sample with labels (j, i) from the frame."""
    back = framed(labels, picture.grid.shape[1:]) > 0.5
    return replace(picture.sample, labels=back[None].astype(np.uint16))


def _report(
    version: ModelVersion, pictures: Sequence[Picture], seen: torch.Tensor, done: Rounds, translated: Translated
) -> Report:
    """What a person should look at before the model is trusted: the pseudo labels, best and worst."""
    report = Report(f"{version.name} {version.version}: learned without labels")
    report.text(
        "Nobody has drawn a mask for this model. Its scores compare it with its own pseudo labels; look at the "
        "pictures and, to know how good it is, draw a few masks and run refseg evaluate."
    )
    steps = [entry["step"] for entry in translated.history]
    curves = {part: (steps, [entry[part] for entry in translated.history]) for part in ("shape", "size", "steady")}
    report.curve("Translation of images into masks, scored without labels", "step", "score (1 is best)", curves)
    header = ("round", "images learned from", "Dice with the labels before", "quality", "prominence of borders")
    lines = [
        (e["round"], e["learned"], f"{e['same']:.3f}", f"{e['quality']:.3f}", f"{e['border']:.2f}")
        for e in done.history
    ]
    report.table(header, lines)
    for caption, pseudo in (("The first pseudo labels", done.labels[0]), ("The last ones", done.last)):
        order = pseudo.quality.argsort(descending=True)
        for what, some in (("best", order[:SHOWN]), ("worst", order[-SHOWN:])):
            shown = [
                (
                    f"{pictures[n].sample.name}: {float(pseudo.quality[n]):.2f}",
                    gray(seen[n : n + 1])[0, 0].numpy(),
                    [(pseudo.labels[n, 0].numpy() > 0.5, "#e69f00")],
                )
                for n in some.tolist()
            ]
            report.pictures(f"{caption}, {what}, with their quality (0 to 1)", shown)
    return report
