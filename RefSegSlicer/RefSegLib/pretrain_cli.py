"""refseg pretrain: what an encoder can learn from images without masks, for a training with few labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from RefSegLib.errors import BadInput
from RefSegLib.models.importing.files import read_spec
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import Store
from RefSegLib.terminal import console, shown_progress, write_report
from RefSegLib.volume.io import image_files


def pretrain_command(
    spec: Annotated[Path, typer.Option("--spec", help="What the model to be trained later expects and gives (JSON).")],
    images: Annotated[Path, typer.Option("--images", help="Folder of images; no masks are needed.")],
    name: Annotated[str, typer.Option("--name", help="Under which name the pretrained encoder is stored.")],
    method: Annotated[
        str, typer.Option("--method", help="tiles: tile-wise autoencoder; masked: masked autoencoding.")
    ] = "tiles",
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 200,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    store: Store = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write what was done and found as JSON.")] = None,
) -> None:
    """Pretrain the encoder of a model on images alone; refseg train --init NAME starts from it."""
    if method not in ("tiles", "masked"):
        raise BadInput(f"There is no method '{method}'; they are tiles and masked.")
    wanted, home = read_spec(spec), ModelStore(store).home
    if not images.is_dir():
        raise BadInput(f"There is no folder '{images}'.")
    files = image_files(images)
    from RefSegLib.pretraining.pretrain import pretrain  # torch: only once all that was given is known to be right
    from RefSegLib.pretraining.pretrained import read_pretrained

    with shown_progress("Pretraining", resumes=True) as progress:
        file = pretrain(wanted, files, home, name=name, method=method, epochs=epochs, seed=seed, progress=progress)
    about = read_pretrained(file).about
    write_report(about.model_dump(mode="json"), report)
    counts = about.data["images"]
    console.print(
        f"'{name}' learned from {counts['train']} images, {counts['validation']} chose when to stop; {counts['test']} "
        f"of test patients were not looked at.\nTo start from it: refseg train --init {name} --reconstruction ...\n"
        f"To hand it over, copy {file}. Curves and pictures: {home / 'reports' / f'pretrained-{name}' / 'report.html'}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
