"""What the demonstration writes: report.json for programs, report.html for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from InteractiveLearningLib.demo import pictures
from InteractiveLearningLib.demo.loop import Case
from InteractiveLearningLib.demo.page import Page
from InteractiveLearningLib.demo.pictures import AFTER, BEFORE, TRUTH

ATLAS = (
    "The annotator is the Harvard-Oxford atlas (majority of its subjects), cut at the uncal apex into anterior and "
    "posterior. Its protocol is not that of the training data, so the first Dice is lower than on the test patients, "
    "and there is something to learn."
)
CARRIED = (
    "The annotator is the Harvard-Oxford atlas, carried to your head by registration. It is no truth: its Dice tells "
    "agreement with the atlas, not quality."
)


def as_json(cases: Sequence[Case]) -> dict[str, Any]:
    """Everything that happened, in plain values."""
    return {
        "cases": [
            {
                "case": case.name,
                "version": case.version,
                "reflection": None if case.region.reflection is None else _reflection(case),
                "interactions": case.interactions,
                "asked_slices": case.asked,
                "proxy_dice_estimated": case.estimated,
                "verdicts": [
                    {"outcome": v.outcome, "reason": v.reason, "candidate": v.candidate} for v in case.verdicts
                ],
                "again": {"version": case.again_version, "dice": case.again},
                "seconds": round(case.seconds, 1),
            }
            for case in cases
        ],
        "summary": {
            "first": _mean([case.interactions[0]["dice"]["whole"] for case in cases]),
            "corrected": _mean([case.interactions[-1]["dice"]["whole"] for case in cases]),
            "again": _mean([case.again["whole"] for case in cases]),
            "published": [v.candidate for case in cases for v in case.verdicts if v.published],
        },
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _reflection(case: Case) -> dict[str, Any]:
    found = case.region.reflection
    return {
        "accepted": found.accepted,
        "reason": found.reason,
        "scores": {candidate.name: candidate.score for candidate in found.candidates},
        "trace": found.trace,
        "estimated_dice": {str(k): v for k, v in found.estimated_dice.items()},
    }


def write_page(cases: Sequence[Case], file: Path) -> None:
    """The report as one self-contained page."""
    page = Page("RefSeg: what happened on these heads")
    page.text(
        "Every hippocampus was segmented by the shipped model, which then reflected on its mask; a robot annotator "
        "corrected it; the case was accepted, learnt from in the background, and the new version was published only if "
        "it did better on the head that is kept for validation. In the end every head was segmented again."
    )
    page.text(CARRIED if any(case.head.carried for case in cases) else ATLAS)
    page.heading("In short")
    rows = [
        (
            case.name,
            case.interactions[0]["dice"]["whole"],
            case.interactions[-1]["dice"]["whole"],
            len(case.interactions) - 1,
            case.again["whole"],
            f"{case.version} → {case.again_version}",
        )
        for case in cases
    ]
    page.table(("case", "first Dice", "corrected", "interactions", "segmented again", "version"), rows)
    page.heading("Versions")
    verdicts = [verdict for case in cases for verdict in case.verdicts]
    page.points(
        [f"Version {v.candidate} after {_after(cases, v)}: {v.reason}" for v in verdicts] or ["No version was made."]
    )
    for case in cases:
        _case(page, case)
    page.write(file)


def _after(cases: Sequence[Case], verdict: Any) -> str:
    return next(case.name for case in cases if verdict in case.verdicts)


def _case(page: Page, case: Case) -> None:
    center = pictures.center_of(case.truth > 0)
    page.heading(case.name)
    page.picture(
        pictures.outlines(
            case.image,
            {
                "model": (case.found > 0, BEFORE),
                "corrected": (case.annotated > 0, AFTER),
                "annotator": (case.truth > 0, TRUTH),
            },
            center,
        ),
        "Before and after the correction, with the annotator's outline.",
    )
    if case.region.reflection is not None:
        _reflection_section(page, case, center)
    page.heading("Correction", 3)
    page.table(
        ("", "what", "why", "whole", "anterior", "posterior"),
        [
            (n, entry["what"], entry["why"], *(entry["dice"][part] for part in ("whole", "anterior", "posterior")))
            for n, entry in enumerate(case.interactions)
        ],
    )
    series = {part: [e["dice"][part] for e in case.interactions] for part in ("whole", "anterior", "posterior")}
    page.picture(pictures.lines(series, "interactions", "Dice"), "Dice after every interaction.")
    if case.residual is not None:
        page.picture(
            pictures.heat(case.image, case.residual, center, {case.axis: case.asked}, "model against proxy mask"),
            "Residual map, and the slices it asked for (dashed).",
        )
    shown = ", ".join(f"{name} {value:.2f}" for name, value in case.estimated.items() if value is not None)
    page.text(f"Dice of the proxy masks as estimated without the truth: {shown or 'not available'}.")
    for verdict in case.verdicts:
        page.text(f"Version {verdict.candidate}: {verdict.reason}")
    page.text(
        f"Segmented again with version {case.again_version}: Dice {case.again['whole']:.3f} "
        f"(first {case.interactions[0]['dice']['whole']:.3f})."
    )


def _reflection_section(page: Page, case: Case, center: Sequence[int]) -> None:
    found = case.region.reflection
    page.heading("Reflection", 3)
    page.text(found.reason)
    if found.estimated_dice:
        page.text("Estimated Dice: " + ", ".join(f"label {k}: {v:.2f}" for k, v in found.estimated_dice.items()) + ".")
    if found.proxy is not None:
        panels = {"input": case.region.array[0], "proxy image": found.proxy}
        page.picture(pictures.beside(panels, center, case.found > 0), "The input, and the image that the mask implies.")
    page.picture(
        pictures.heat(case.image, found.suspect, center, {}, "suspect"), "How likely the mask is wrong, voxel by voxel."
    )
    agreement = {candidate.name: candidate.score for candidate in found.candidates}
    page.picture(
        pictures.bars(agreement, "similarity of proxy and input"),
        "How well the proxy image of every candidate mask agrees with the input; identity is the first mask.",
    )
    if found.trace:
        page.picture(
            pictures.lines({"similarity": found.trace}, "step of adjusting", "similarity"),
            "Similarity while the model was adjusted to this case.",
        )
