"""The page about an ordinary training: curves, scores, and the validation cases it does worst on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from RefSegLib.models.store import ModelVersion
from RefSegLib.quality.metrics import dice
from RefSegLib.training.cases import Sample
from RefSegLib.training.fit import Fit
from RefSegLib.training.report import Report
from RefSegLib.training.segmenter import predict

SHOWN = 6
GIVEN, FOUND = "#e69f00", "#0072b2"


def page_of(version: ModelVersion, segmenter: nn.Module, fitted: Fit, validation: Sequence[Sample]) -> Report:
    """The page of a version that has just been trained on clean masks."""
    manifest = version.manifest
    report = Report(f"{version.name} {version.version}: training")
    cases, begun = manifest.data["cases"], manifest.settings["pretrained"]
    origin = f"the pretrained encoder '{begun['name']}'" if begun else manifest.parent or "random weights"
    beside = " Its encoder also learned to draw the image." if manifest.settings["reconstruction"] else ""
    report.text(f"Started from {origin}; learned from {cases['train']} cases.{beside}")
    roles = [role for role in ("validation", "test") if manifest.scores.get(role)]
    names = [*(label.name for label in version.spec.labels), "mean"]
    scores = {role: manifest.scores[role] for role in roles}
    rows = [[name, *(scores[role].get(name, {}).get("dice", "") for role in roles)] for name in names]
    report.table(["Dice", *(f"{role} ({cases[role]} cases)" for role in roles)], rows)
    epochs = [entry["epoch"] for entry in fitted.history]
    report.curve("Loss", "epoch", "loss", {"training": (epochs, [entry["loss"] for entry in fitted.history])})
    report.curve("Validation", "epoch", "Dice", {"validation": (epochs, [entry["score"] for entry in fitted.history])})
    looked = [(sample, predict(segmenter, sample.image, version.spec)) for sample in validation]
    looked.sort(key=lambda pair: dice(pair[1] > 0, pair[0].labels > 0))
    report.pictures(
        "Validation cases, the worst first. Orange: the given mask. Blue: what was found.",
        [_picture(sample, found) for sample, found in looked[:SHOWN]],
    )
    return report


def _picture(sample: Sample, found: np.ndarray) -> tuple:
    """The slice with most of what differs, else with most of the structure."""
    given = np.asarray(sample.labels)
    differs, both = (found != given).sum((1, 2)), (given > 0).sum((1, 2))
    k = int((differs if differs.any() else both).argmax())
    name = f"{sample.name}: Dice {dice(found > 0, given > 0):.2f}"
    return name, np.asarray(sample.image[0, k], np.float32), [(given[k] > 0, GIVEN), (found[k] > 0, FOUND)]
