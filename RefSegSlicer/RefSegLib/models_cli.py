"""The commands about model versions: refseg models ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.terminal import console

models = typer.Typer(no_args_is_help=True, help="List, show, activate, roll back, move and verify model versions.")

Store = Annotated[
    Path | None,
    typer.Option("--store", help="Where models and accepted cases live (default: REFSEG_HOME or ~/.refseg)."),
]


def load_version(store: ModelStore, model: str) -> ModelVersion:
    """The version that NAME or NAME@VERSION means."""
    name, _, version = model.partition("@")
    return store.load(name, version or None)


@models.command("list")
def list_models(store: Store = None) -> None:
    """All models with their versions; * marks the active one."""
    place = ModelStore(store)
    table = Table("model", "version", "created", "parent", "test Dice")
    for name in place.names():
        for version in place.versions(name):
            manifest = place.load(name, version).manifest
            mark = " *" if version == place.active(name) else ""
            score = manifest.scores.get("test", {}).get("mean", {}).get("dice")
            table.add_row(
                name, version + mark, manifest.created, manifest.parent or "-", "-" if score is None else f"{score:.3f}"
            )
    console.print(table)


@models.command("show")
def show_model(model: str, store: Store = None) -> None:
    """Everything recorded about a version, as JSON."""
    console.print_json(load_version(ModelStore(store), model).manifest.model_dump_json())


@models.command("activate")
def activate_model(model: str, store: Store = None) -> None:
    """Make NAME@VERSION the one that is used from now on."""
    name, _, version = model.partition("@")
    if not version:
        raise BadInput(f"Say which version, for example {name}@1.")
    ModelStore(store).activate(name, version)
    console.print(f"{name}@{version} is active.")


@models.command("rollback")
def roll_back_model(name: str, store: Store = None) -> None:
    """Return to the version that was active before."""
    console.print(f"{name}@{ModelStore(store).rollback(name)} is active again.")


@models.command("export")
def export_model(model: str, file: Path, store: Store = None) -> None:
    """Write a version to one file, for another machine."""
    place = ModelStore(store)
    version = load_version(place, model)
    place.export(version.name, version.version, file)
    console.print(f"{version.name}@{version.version} was written to {file}.")


@models.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(help="An exported version, TorchScript, a MONAI bundle, nnU-Net results.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call the model here.")] = None,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="What the model expects and gives (JSON); for TorchScript and MONAI.")
    ] = None,
    gives: Annotated[
        str | None,
        typer.Option(
            "--gives", help="TorchScript: logits, probabilities, 'foreground logit' or 'foreground probability'."
        ),
    ] = None,
    configuration: Annotated[
        str | None, typer.Option("--configuration", help="nnU-Net: default 3d_fullres, else 2d.")
    ] = None,
    fold: Annotated[str | None, typer.Option("--fold", help="nnU-Net: which fold, default 0.")] = None,
    store: Store = None,
) -> None:
    """Add a model from elsewhere, or an exported version; it becomes active only if the model is new."""
    from RefSegLib.models.importing.importer import import_model as run

    version = run(path, ModelStore(store), name=name, spec=spec, gives=gives, configuration=configuration, fold=fold)
    console.print(f"{version.name}@{version.version} was added.")
    if version.synthesizer() is None:
        console.print(
            f"It segments, but cannot reflect yet: refseg train-synthesizer --model {version.name} --images DIR "
            "--labels DIR.",
            soft_wrap=True,
        )


@models.command("verify")
def verify_models(model: Annotated[str | None, typer.Argument()] = None, store: Store = None) -> None:
    """Check the hashes of a version, or of all of them."""
    place = ModelStore(store)
    name, _, version = (model or "").partition("@")
    for one in [name] if name else place.names():
        for number in [version] if version else place.versions(one):
            place.verify(one, number)
            console.print(f"{one}@{number} is whole.")
