"""refseg bootstrap: a model from images without masks, and masks or a shape that belong to none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import Store
from RefSegLib.resources import resource
from RefSegLib.terminal import console, shown_progress, write_report
from RefSegLib.volume.io import image_files

SHIPPED = ("fetal-head", "optic-disc")


def bootstrap_command(
    images: Annotated[Path, typer.Option("--images", help="Folder of flat images; no masks are needed.")],
    name: Annotated[str, typer.Option("--name", help="Under which name the new version is stored.")],
    masks: Annotated[Path | None, typer.Option("--masks", help="Folder of masks of other images.")] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", help=f"ellipse:PRIOR.json, or ellipse: and {' or '.join(SHIPPED)}."),
    ] = None,
    label: Annotated[str, typer.Option("--label", help="What the structure is called.")] = "structure",
    size: Annotated[int, typer.Option("--size", min=32, max=256, help="Pixels of the longer side.")] = 64,
    steps: Annotated[int, typer.Option("--steps", min=20, help="Of the longer of two translations.")] = 700,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="At most so many segmenters in turn.")] = 3,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    store: Store = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write what was done and found as JSON.")] = None,
) -> None:
    """Train a model without labels; the new version is active if it is the first of its name."""
    if (masks is None) == (shape is None):
        raise BadInput("Give either --masks, a folder of masks of other images, or --shape ellipse:PRIOR.json.")
    files = _files(images, "images")
    shapes = _files(masks, "masks") if masks is not None else None
    from RefSegLib.bootstrapping.shape_prior import read_prior

    prior = None if shape is None else read_prior(_prior_file(shape))
    from RefSegLib.bootstrapping.bootstrap import bootstrap  # torch: only once all that was given is known to be right
    from RefSegLib.bootstrapping.cyclegan import GanSettings
    from RefSegLib.bootstrapping.rounds import RoundSettings
    from RefSegLib.training.report import report_folder

    place = ModelStore(store)
    with shown_progress("Learning without labels", resumes=True) as progress:
        version = bootstrap(
            files,
            prior or shapes,
            place,
            name=name,
            label=label,
            size=size,
            gan=GanSettings(steps=steps),
            rounds=RoundSettings(rounds=rounds),
            seed=seed,
            progress=progress,
        )
    first = place.versions(name) == [version.version]
    if first:
        place.activate(name, version.version)
    write_report(version.manifest.model_dump(mode="json"), report)
    page = report_folder(place, version) / "report.html"
    console.print(
        f"{name}@{version.version} was trained{' and is active' if first else ''}. It has learned from its own pseudo "
        f"labels, and its scores are against these: look at them in {page}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print_json(json.dumps(version.manifest.scores))


def _files(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise BadInput(f"There is no folder '{folder}'.")
    files = image_files(folder)
    if not files:
        raise BadInput(f"There are no {what} in '{folder}'.")
    return files


def _prior_file(shape: str) -> Path:
    """The file of "ellipse:PRIOR.json", or of a shipped prior."""
    kind, _, what = shape.partition(":")
    if kind != "ellipse" or not what:
        raise BadInput(f"The shape '{shape}' is not known; write ellipse:PRIOR.json (docs/recipes.md shows one).")
    return resource(f"specs/{what}-prior.json") if what in SHIPPED else Path(what)
