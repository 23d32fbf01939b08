"""Whatever somebody else's model comes as, made a version in the store."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from RefSegLib.errors import BadInput
from RefSegLib.models.importing.files import read_spec, results_folders
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.models.version import MANIFEST, ModelVersion

Kind = Literal["export", "torchscript", "monai", "nnunet"]
KINDS = (
    "a model exported by RefSeg, a TorchScript file (with --spec), a folder of a MONAI bundle, or a results folder of "
    "nnU-Net v2"
)


def kind_of(path: Path) -> Kind:
    """What a file or folder is. Raises BadInput, saying what to do instead, for what cannot be imported."""
    if not path.exists():
        raise BadInput(f"There is no '{path}'.")
    if path.is_dir():
        if (path / "configs" / "metadata.json").is_file():
            return "monai"
        if results_folders(path):
            return "nnunet"
        raise BadInput(
            f"'{path}' is neither a MONAI bundle (configs/metadata.json) nor a results folder of nnU-Net v2 "
            f"(plans.json beside fold_0). What can be imported: {KINDS}."
        )
    if path.suffix == ".onnx":
        raise BadInput(f"'{path}' is ONNX, which cannot be imported. Export the network as TorchScript (torch.jit).")
    if path.suffix == ".refsegpkg":
        raise BadInput(f"'{path}' is a signed package, whose signature is checked by: refseg models unpack {path}.")
    if not zipfile.is_zipfile(path):
        raise BadInput(f"'{path}' is not a model that can be imported, or it is damaged. It may be {KINDS}.")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if MANIFEST in names:
        return "export"
    if any("/code/" in name for name in names):
        return "torchscript"
    if any(name.endswith("/data.pkl") for name in names):
        raise BadInput(
            f"'{path}' holds weights without their network. Export the network with its weights as TorchScript "
            "(torch.jit.trace or torch.jit.script, then save), or name the folder of the bundle or of the results."
        )
    if any(name.endswith(("configs/metadata.json", "plans.json")) for name in names):
        raise BadInput(f"'{path}' is packed. Unpack it, and name the folder.")
    raise BadInput(f"'{path}' is not a model that can be imported. It may be {KINDS}.")


def import_model(
    path: Path,
    store: ModelStore,
    *,
    name: str | None = None,
    spec: Path | None = None,
    gives: str | None = None,
    configuration: str | None = None,
    fold: str | None = None,
) -> ModelVersion:
    """Add what is at `path` to the store, as a version that is active if it is the first of its name.

    name: of the model; default: what it is called there. spec: JSON of a SegmenterSpec, needed for TorchScript, and
    used for a MONAI bundle instead of what that says about images and labels; gives: what TorchScript gives, see
    models/foreign.py; configuration, fold: of nnU-Net. Raises BadInput for whatever cannot be imported exactly.
    """
    kind = kind_of(path)
    options = {"--name": name, "--spec": spec, "--gives": gives, "--configuration": configuration, "--fold": fold}
    takes = {
        "export": (),
        "torchscript": ("--name", "--spec", "--gives"),
        "monai": ("--name", "--spec", "--gives"),
        "nnunet": ("--name", "--configuration", "--fold"),
    }[kind]
    useless = [option for option, value in options.items() if value is not None and option not in takes]
    if useless:
        raise BadInput(f"{', '.join(useless)} cannot be used with '{path}': it is {_called(kind)}.")
    if kind == "export":
        return store.import_(path)
    # torch is needed from here on.
    from RefSegLib.models.importing.monai_bundle import import_monai
    from RefSegLib.models.importing.nnunet import import_nnunet
    from RefSegLib.models.importing.torchscript import as_torchscript, import_torchscript

    given = None if spec is None else read_spec(spec)
    if given is not None and name is not None:
        given = SegmenterSpec.model_validate({**given.model_dump(), "name": name})
    if kind == "torchscript":
        if given is None:
            raise BadInput(
                f"'{path}' does not say which images it takes. Describe that with --spec FILE.json: labels, spacing, "
                "patch, normalization (docs/models.md shows one)."
            )
        described = as_torchscript(given, gives)
        content, origin = import_torchscript(path, described), {"format": "TorchScript"}
    elif kind == "monai":
        described, content, origin = import_monai(path, name, given, gives)
    else:
        described, content, origin = import_nnunet(path, name, configuration, fold)
    weights = content if isinstance(content, bytes) else {key: value.numpy() for key, value in content.items()}
    version = store.add(described, weights, data={"imported": {**origin, "file": path.name}})
    if store.versions(version.name) == [version.version]:
        store.activate(version.name, version.version)
    return version


def _called(kind: Kind) -> str:
    return {
        "export": "a model exported by RefSeg, with a name and a description of its own",
        "torchscript": "a TorchScript file",
        "monai": "a MONAI bundle",
        "nnunet": "a results folder of nnU-Net",
    }[kind]
