"""The commands about model versions: refseg models ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.terminal import console

models = typer.Typer(no_args_is_help=True, help="List, show, activate, roll back, move, sign and verify versions.")
keys = typer.Typer(no_args_is_help=True, help="Keys to sign models with, and whose signatures are trusted here.")
models.add_typer(keys, name="keys")

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
        active = _active(place, name)
        for version in place.versions(name):
            manifest = place.load(name, version).manifest
            mark = " *" if version == active else ""
            score = manifest.scores.get("test", {}).get("mean", {}).get("dice")
            table.add_row(
                name, version + mark, manifest.created, manifest.parent or "-", "-" if score is None else f"{score:.3f}"
            )
    console.print(table)


def _active(place: ModelStore, name: str) -> str | None:
    try:
        return place.active(name)
    except BadInput:  # unpacked, and not activated yet
        return None


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


@models.command("pack")
def pack_model(
    model: Annotated[str, typer.Argument(help="NAME or NAME@VERSION; without a version, the active one.")],
    key: Annotated[Path, typer.Option("--key", help="The private key to sign with, see: refseg models keys new.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, for example heart.refsegpkg.")],
    version: Annotated[str | None, typer.Option("--version", help="Which version, as in NAME@VERSION.")] = None,
    store: Store = None,
) -> None:
    """Write a version to one signed file, for a site without a network."""
    from RefSegLib.models.package import pack
    from RefSegLib.models.signing import read_signer

    found = load_version(ModelStore(store), model if version is None else f"{model}@{version}")
    signer = read_signer(key, lambda: typer.prompt(f"Passphrase of {key}", hide_input=True))
    pack(found, signer, out)
    console.print(f"{found.name}@{found.version} was written to {out}, signed by '{signer.public.name}' with the key")
    console.print(signer.public.fingerprint)


@models.command("unpack")
def unpack_model(
    file: Path,
    activate: Annotated[bool, typer.Option("--activate", help="Use this version from now on.")] = False,
    store: Store = None,
) -> None:
    """Add the version in a signed file, if its signer is trusted here; it becomes active only with --activate."""
    from RefSegLib.models.package import unpack

    place = ModelStore(store)
    unpacked = unpack(file, place)
    name = f"{unpacked.version.name}@{unpacked.version.version}"
    if unpacked.added:
        console.print(f"{name} was added. It was signed by '{unpacked.signer.name}'.")
    else:
        console.print(f"{name} is identical to what is in the package, so nothing was added.")
    if activate:
        place.activate(unpacked.version.name, unpacked.version.version)
        console.print(f"{name} is active.")
    elif _active(place, unpacked.version.name) != unpacked.version.version:
        console.print(f"To use it: refseg models activate {name}.")


@keys.command("new")
def new_key(
    file: Annotated[Path, typer.Argument(help="Where to write the private key, for example ulm.key.")],
    passphrase: Annotated[
        bool, typer.Option("--passphrase/--no-passphrase", help="Ask for a passphrase that protects the key.")
    ] = True,
) -> None:
    """Make a key to sign models with, and beside it its public half, which ends in .pub and is to be given away."""
    from RefSegLib.models.signing import new_key as make
    from RefSegLib.models.signing import public_file_of

    secret = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else None
    made = make(file, secret)
    console.print(f"'{file}' signs; keep it to yourself. Give away '{public_file_of(file)}', the key", soft_wrap=True)
    console.print(made.fingerprint)


@keys.command("trust")
def trust_key(
    file: Annotated[Path, typer.Argument(help="A public key, ending in .pub.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call its owner here.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The digits have been compared already.")] = False,
    store: Store = None,
) -> None:
    """Accept models signed with a key, after its digits have been compared with its owner's, say on the telephone."""
    from RefSegLib.models.signing import TrustedKeys, read_public

    key = read_public(file, name)
    console.print(key.fingerprint)
    if not yes and not typer.confirm(f"Does '{key.name}' read out the same digits?"):
        raise BadInput("The key was not trusted, and nothing was changed.")
    TrustedKeys(ModelStore(store).home).trust(key)
    console.print(f"Models signed by '{key.name}' are accepted from now on.")


@keys.command("list")
def list_keys(store: Store = None) -> None:
    """Whose signatures are accepted here, with the digits of their keys."""
    from RefSegLib.models.signing import TrustedKeys

    for key in TrustedKeys(ModelStore(store).home).all():
        console.print(f"{key.name}: {key.fingerprint}", soft_wrap=True)


@keys.command("forget")
def forget_key(name: str, store: Store = None) -> None:
    """Accept nothing more that this key signs; versions that are in the store stay."""
    from RefSegLib.models.signing import TrustedKeys

    TrustedKeys(ModelStore(store).home).forget(name)
    console.print(f"Models signed by '{name}' are no longer accepted.")
