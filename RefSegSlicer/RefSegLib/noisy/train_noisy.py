"""From images and masks that may be wrong, by one rater or several, to a new model version and a report of whom to
look at again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from RefSegLib.errors import BadInput
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.noisy import pixels
from RefSegLib.noisy.corrections import Correction, Level, corrected
from RefSegLib.noisy.raters import RatedCase, RatedSample, consensus_case, rated_samples
from RefSegLib.noisy.segmenter import train_noisy_segmenter
from RefSegLib.pretraining.pretrained import Pretrained
from RefSegLib.progress import SILENT, Progress
from RefSegLib.training.augment import Augmentation
from RefSegLib.training.cases import Sample, by_role, fingerprint
from RefSegLib.training.fit import Fit
from RefSegLib.training.report import Report, report_folder
from RefSegLib.training.train import finish, read_samples, started, workplace

SHOWN = 24  # masks with pictures in the report
GIVEN, BELIEVED, WRONG = "#e69f00", "#0072b2", (255, 0, 40)


def train_noisy(
    spec: SegmenterSpec,
    cases: Sequence[RatedCase],
    store: ModelStore,
    *,
    level: Level = "image",
    init: ModelVersion | Pretrained | None = None,
    epochs: int,
    seed: int,
    progress: Progress = SILENT,
) -> ModelVersion:
    """As `train`, where masks may be wrong: those of the patients that train are believed as far as the network finds
    them right, at `level`. Several raters of a case are weighed against each other the same way.

    The synthesizer learns from masks corrected at both levels, and the report shows these. Validation and test scores
    are against the masks as they are (of several raters: what most say), so a model that is better than the masks is
    not told so by its scores.
    store home / "reports" / NAME-VERSION / report.html names the masks that are suspected and shows them.

    Raises BadInput for data that cannot be trained on (naming the file), RefSegError if training breaks down,
    Cancelled if the user asked to stop. A training that was killed goes on where it was.
    """
    if epochs < 1:
        raise BadInput(f"{epochs} epochs train nothing; ask for at least 1.")
    roles = by_role(cases)
    data = {
        "fingerprint": fingerprint(one for case in cases for one in case.cases()),
        "cases": {role: len(some) for role, some in roles.items()},
        "patients": {role: len({case.patient for case in some}) for role, some in roles.items()},
        "raters": len({rater for case in cases for rater in case.masks}),
    }
    before = init if isinstance(init, Pretrained) else None
    parent = None if init is None or before else f"{init.name}@{init.version}"
    origin = before.origin if before else parent
    recipe = ["noisy", level, spec.model_dump(mode="json"), data["fingerprint"], epochs, seed, origin]
    folder = workplace(store, json.dumps(recipe))
    cache = folder / "cache"
    agreed = {role: [consensus_case(case, folder / "consensus") for case in some] for role, some in roles.items()}
    validation = read_samples({"train": [], "validation": agreed["validation"]}, spec, cache)["validation"]
    train = []
    for number, case in enumerate(roles["train"]):
        progress(0.05 * number / len(roles["train"]), f"reading {case.name}")
        train += rated_samples(case, spec, cache)

    weights = before.weights if before else init and init.segmenter()
    segmenter = started(build_segmenter, spec, seed, weights, whole=before is not None)
    segmenter_fit = train_noisy_segmenter(
        segmenter,
        spec,
        train,
        validation,
        level=level,
        epochs=epochs,
        seed=seed,
        checkpoint=folder / "segmenter.checkpoint",
        progress=progress.part(0.05, 0.75),
    )
    believed = corrected(segmenter, train, spec, "both", progress.part(0.75, 0.8))
    suspects = suspected(train, believed)
    version = finish(
        spec,
        segmenter,
        segmenter_fit,
        {"train": [_as_believed(*pair) for pair in zip(train, believed, strict=True)], "validation": validation},
        agreed,
        store,
        data=data,
        settings={
            "augmentation": asdict(Augmentation()),
            "method": "noisy labels",
            "level": level,
            "pretrained": before and before.about.model_dump(mode="json", exclude={"settings": {"history"}}),
            "masks": len(suspects),
            "suspected": sum(entry["suspected"] for entry in suspects),
        },
        parent=parent,
        epochs=epochs,
        seed=seed,
        folder=folder,
        progress=progress.part(0.8, 1.0),
        init=None if before else init,
    )
    report_of(version, segmenter_fit, train, believed, suspects).write(report_folder(store, version))
    return version


def _as_believed(sample: RatedSample, one: Correction) -> Sample:
    return Sample(sample.name, sample.image, one.target.argmax(0).astype(np.uint16), sample.spacing)


def suspected(samples: Sequence[RatedSample], believed: Sequence[Correction]) -> list[dict[str, Any]]:
    """One entry for each mask, the most doubtful first: case, rater, what it has too much and misses (adding up to
    1 - Dice with the network), how far that is from what good masks do, trust, the doubted share of its structures
    and those believed, the sample and rater by number, and whether it is suspected."""
    entries = []
    for number, (sample, one) in enumerate(zip(samples, believed, strict=True)):
        wrong = pixels.doubted(one.target, sample.given)
        for rater, name in enumerate(sample.raters):
            either = (sample.given[rater] > 0) | (one.target[0] < 0.5)
            entries.append(
                {
                    "case": sample.name,
                    "rater": name,
                    "too much": float(one.disagreement[rater, 0]),
                    "missing": float(one.disagreement[rater, 1]),
                    "off": float(one.off[rater]),
                    "trust": float(one.trust[rater]),
                    "doubted": float(wrong[rater].sum() / max(1, either.sum())),
                    "suspected": bool(one.suspected[rater]),
                    "at": (number, rater),
                }
            )
    return sorted(entries, key=lambda entry: -entry["off"])


def report_of(
    version: ModelVersion,
    fitted: Fit,
    samples: Sequence[RatedSample],
    believed: Sequence[Correction],
    suspects: Sequence[dict[str, Any]],
) -> Report:
    """The page about a training on masks that may be wrong."""
    report = Report(f"{version.name} {version.version}: training on masks that may be wrong")
    bad = [entry for entry in suspects if entry["suspected"]]
    report.text(
        f"{len(bad)} of {len(suspects)} masks are suspected: they disagree with the network otherwise than good masks "
        "do. Suspected does not mean wrong: a rare anatomy looks the same. Look at them, mend those that are wrong, "
        "and train again."
    )
    scores = {role: version.manifest.scores.get(role, {}).get("mean", {}) for role in ("validation", "test")}
    told = ", ".join(f"{role} Dice {one['dice']:.3f}" for role, one in scores.items() if one)
    report.text(f"Scores are against the masks as they are, so they say less than usual: {told or 'none'}.")
    by_rater: dict[str, list[dict[str, Any]]] = {}
    for entry in suspects:
        by_rater.setdefault(entry["rater"], []).append(entry)
    if len(by_rater) > 1:
        report.table(
            ["rater", "masks", "suspected", "too much, mean", "missing, mean"],
            [
                [
                    name,
                    len(own),
                    sum(e["suspected"] for e in own),
                    f"{np.mean([e['too much'] for e in own]):.1%}",
                    f"{np.mean([e['missing'] for e in own]):.1%}",
                ]
                for name, own in sorted(by_rater.items())
            ],
        )
    report.table(
        ["case", "rater", "too much", "missing", "trust", "doubted part", "suspected"],
        [
            [
                e["case"],
                e["rater"],
                f"{e['too much']:.1%}",
                f"{e['missing']:.1%}",
                f"{e['trust']:.2f}",
                f"{e['doubted']:.0%}",
                "yes" if e["suspected"] else "",
            ]
            for e in (bad or suspects[:5])
        ],
    )
    caption = "Orange: the mask as given. Blue: what is believed. Red: the noise map, where the mask is probably wrong."
    report.pictures(caption, [_picture(samples, believed, e) for e in (bad or suspects[:5])[:SHOWN]])
    epochs = [entry["epoch"] for entry in fitted.history]
    report.curve("Loss", "epoch", "loss", {"training": (epochs, [entry["loss"] for entry in fitted.history])})
    scores = [entry["score"] for entry in fitted.history]
    report.curve("Validation", "epoch", "Dice with the masks as they are", {"validation": (epochs, scores)})
    return report


def _picture(samples: Sequence[RatedSample], believed: Sequence[Correction], entry: dict[str, Any]) -> tuple:
    """The slice with most of the noise map."""
    number, rater = entry["at"]
    sample, one = samples[number], believed[number]
    wrong = pixels.doubted(one.target, sample.given)[rater]
    at = int(wrong.sum((1, 2)).argmax())
    name = f"{sample.name}, {entry['rater']}" if len(sample.raters) > 1 else sample.name
    low, high = np.percentile(sample.image[0, at], (0.5, 99.5))
    gray = 255 * np.clip((sample.image[0, at] - low) / max(float(high - low), 1e-6), 0, 1)
    colors = np.repeat(gray[..., None], 3, -1)
    colors[wrong[at]] = 0.5 * colors[wrong[at]] + 0.5 * np.array(WRONG)
    masks = [(sample.given[rater] > 0, GIVEN), (one.target[0] < 0.5, BELIEVED)]
    name = name if len(wrong) == 1 else f"{name}: slice {at}"
    return name, colors.astype(np.uint8), [(mask[at], color) for mask, color in masks]
