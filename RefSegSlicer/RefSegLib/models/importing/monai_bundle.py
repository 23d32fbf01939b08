"""A MONAI bundle: configs/metadata.json, configs/inference.json, and models/model.pt or models/model.ts.

Only literal values and simple references are read from the configuration; its expressions ("$...") are Python, and are
never evaluated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from RefSegLib.errors import BadInput
from RefSegLib.models.importing.checkpoint import read_checkpoint
from RefSegLib.models.importing.files import labels_named, read_json
from RefSegLib.models.importing.torchscript import as_torchscript, import_torchscript, try_out
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Network, Normalization, SegmenterSpec

INSTEAD = "Describe the model yourself with --spec."
# Transforms that change neither the values nor the places of voxels, for us.
HARMLESS = ("LoadImaged", "EnsureChannelFirstd", "AsChannelFirstd", "EnsureTyped", "ToTensord", "CastToTyped")
# Normalizations that look at the image; the first two at all channels together, unless told otherwise.
STATISTICS = ("NormalizeIntensityd", "ScaleIntensityd", "ScaleIntensityRangePercentilesd")
# What is read of a transform; anything else, such as its keys, may be an expression.
ARGUMENTS = (
    *("pixdim", "axcodes", "a_min", "a_max", "b_min", "b_max", "clip", "lower", "upper", "relative", "minv", "maxv"),
    *("factor", "nonzero", "channel_wise", "subtrahend", "divisor", "sigmoid"),
)


class Config:
    """inference.json: values by "section#key", references followed, expressions refused."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content = read_json(file)

    def get(self, path: str) -> Any:
        """The literal value at a path like "network_def" or "inferer#roi_size"; None if there is none."""
        return self.literal(self.raw(path), path)

    def raw(self, path: str) -> Any:
        """The value at a path as it is written; None if there is none."""
        value: Any = self.content
        for part in path.replace("::", "#").split("#"):
            value = self._followed(value)
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                return None
        return value

    def literal(self, value: Any, where: str, depth: int = 0) -> Any:
        """`value` with all references in it replaced. Raises BadInput at an expression."""
        if depth > 20:
            raise BadInput(f"'{where}' in '{self.file}' refers to itself.")
        if isinstance(value, str) and value.startswith("@"):
            return self.literal(self._followed(value), where, depth + 1)
        if isinstance(value, str) and value.startswith(("$", "%")):
            raise BadInput(
                f"'{where}' in '{self.file}' is computed by a program ({value[:80]}), which is not run. Write its "
                f"value there instead. {INSTEAD}"
            )
        if isinstance(value, dict):
            return {key: self.literal(one, f"{where}#{key}", depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self.literal(one, f"{where}#{n}", depth + 1) for n, one in enumerate(value)]
        return value

    def _followed(self, value: Any, depth: int = 0) -> Any:
        if not (isinstance(value, str) and value.startswith("@")):
            return value
        found = self.raw(value[1:]) if depth < 20 else None
        if found is None:
            raise BadInput(f"'{value}' in '{self.file}' refers to nothing.")
        return self._followed(found, depth + 1)


def import_monai(
    folder: Path, name: str | None, given: SegmenterSpec | None, gives: str | None = None
) -> tuple[SegmenterSpec, dict[str, torch.Tensor] | bytes, dict[str, Any]]:
    """The specification, the weights (or the TorchScript file) and the origin of a bundle.

    given: a specification that is used instead of what the configuration says about images and labels; `axes` and
    `gives` of its network too. Raises BadInput for whatever cannot be expressed.
    """
    metadata, config = read_json(folder / "configs" / "metadata.json"), Config(folder / "configs" / "inference.json")
    weights, script = folder / "models" / "model.pt", folder / "models" / "model.ts"
    if not weights.is_file() and not script.is_file():
        raise BadInput(f"There is neither models/model.pt nor models/model.ts in '{folder}'. Download the weights.")
    try:
        spec = given or _spec(name or folder.name, metadata, config)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadInput(
            f"The configuration of '{folder}' is not written as expected ({type(error).__name__}: {error}). {INSTEAD}"
        ) from error
    except ValueError as error:  # of pydantic
        raise BadInput(f"The configuration of '{folder}' cannot be taken over: {error} {INSTEAD}") from error
    if gives is not None:
        arguments = {**spec.network.arguments, "gives": gives}
        spec = spec.model_copy(update={"network": Network(name=spec.network.name, arguments=arguments)})
    origin = {"format": "MONAI bundle", "name": metadata.get("name"), "version": metadata.get("version")}
    if not weights.is_file():
        spec = as_torchscript(spec, None if "gives" in spec.network.arguments else "logits")
        return spec, import_torchscript(script, spec), origin
    spec = spec.model_copy(update={"network": _network(spec, config)})
    module = build_segmenter(spec)
    prefix = "network.network." if spec.dimensions == 2 else "network."
    try:
        module.load_state_dict({prefix + key: value for key, value in _state(weights).items()})
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BadInput(
            f"The weights in '{weights}' do not fit the network in '{config.file}': "
            f"{' '.join(str(error).split())[:400]}"
        ) from error
    try_out(spec, module)
    return spec, module.state_dict(), origin


def _state(file: Path) -> dict[str, Any]:
    """The state dict in a file, also where it lies under a name beside other things."""
    content = read_checkpoint(file)
    for key in ("model", "state_dict", "network", "net"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {key.removeprefix("module."): value for key, value in content.items()}


def _network(spec: SegmenterSpec, config: Config) -> Network:
    definition = config.get("network_def") or config.get("network")
    if not isinstance(definition, dict) or "_target_" not in definition:
        raise BadInput(
            f"'{config.file}' does not say which network it is (network_def with a _target_). Export the model as "
            "TorchScript and import that file."
        )
    arguments = {key: value for key, value in definition.items() if not key.startswith("_")}
    target = str(definition["_target_"])
    parts = target.split(".")
    if len(parts) > 1 and parts[:3] != ["monai", "networks", "nets"]:
        raise BadInput(f"The network is {target}, not one of monai.networks.nets. Export the model as TorchScript.")
    seen = ("axes", "gives", "scale", "offset")
    ours = {key: spec.network.arguments[key] for key in seen if key in spec.network.arguments}
    return Network(name="monai", arguments={"class": parts[-1], "arguments": arguments, **ours})


def _spec(name: str, metadata: dict[str, Any], config: Config) -> SegmenterSpec:
    """What metadata.json and the transforms in inference.json say about images and labels."""
    data = metadata["network_data_format"]
    image, prediction = data["inputs"]["image"], data["outputs"]["pred"]
    channels = _by_number(image.get("channel_def")) or [f"channel {n}" for n in range(image["num_channels"])]
    outputs = _by_number(prediction.get("channel_def"))
    activations = [step for step in _steps(config, "postprocessing") if step["_target_"] == "Activationsd"]
    if len(outputs) > 1 and any(step.get("sigmoid") for step in activations):
        raise BadInput(
            f"The outputs of the network ({', '.join(outputs)}) do not exclude each other, as labels of RefSeg do."
        )
    if not outputs or (len(outputs) > 1 and outputs[0].lower() != "background"):
        raise BadInput(f"metadata.json does not say that the first output is background ({outputs}). {INSTEAD}")
    patch = config.get("inferer#roi_size") or image.get("spatial_shape")
    if not isinstance(patch, list) or len(patch) not in (2, 3) or not all(isinstance(n, int) and n > 0 for n in patch):
        raise BadInput(f"The size of the patches is not given as numbers ({patch}). {INSTEAD}")
    size = len(patch)
    spacing, axcodes, normalization, affine = _prepared(_steps(config, "preprocessing"), size, len(channels))
    axes = axcodes or "ijk"[:size]
    ours = "SPL" if axcodes else "kji"[3 - size :]
    places = [ours.index({"I": "S", "A": "P", "R": "L"}.get(letter, letter)) for letter in axes]
    patch, spacing = ([values[places.index(axis)] for axis in range(size)] for values in (patch, spacing))
    flat = size == 2
    gives = "foreground logit" if len(outputs) == 1 else "logits"
    return SegmenterSpec(
        name=name,
        description=str(metadata.get("description", ""))[:500],
        dimensions=size,
        channels=tuple(channels),
        labels=labels_named(outputs if len(outputs) == 1 else outputs[1:]),
        spacing=(0.0, *spacing) if flat else tuple(spacing),
        patch=(1, *patch) if flat else tuple(patch),
        aligned=bool(axcodes),
        normalization=normalization,
        network=Network(name="monai", arguments={"axes": axes, "gives": gives, **affine}),
    )


def _by_number(names: dict[str, str] | None) -> list[str]:
    """The names of channels 0, 1, 2, ..."""
    names = {int(number): str(label) for number, label in (names or {}).items()}
    return [names[number] for number in range(len(names))]


def _steps(config: Config, section: str) -> list[dict[str, Any]]:
    """The transforms of a section, those that do nothing for us left out, with the arguments that matter."""
    transforms = config.raw(f"{section}#transforms")
    if transforms is None:
        return []
    if not isinstance(transforms, list):
        raise BadInput(f"The {section} in '{config.file}' is not a list of transforms. {INSTEAD}")
    steps = []
    for number, transform in enumerate(transforms):
        target = str(transform["_target_"]).rsplit(".", 1)[-1]
        where = f"{section}#transforms#{number}"
        if target in HARMLESS or config.literal(transform.get("_disabled_", False), where) is True:
            continue
        known = {key: config.literal(transform[key], f"{where}#{key}") for key in ARGUMENTS if key in transform}
        steps.append({"_target_": target, **known})
    return steps


def _prepared(
    steps: list[dict[str, Any]], size: int, channels: int
) -> tuple[list[float], str | None, Normalization, dict[str, float]]:
    """Spacing in the order of the network's axes, the codes of these axes if they are turned, the normalization, and
    what is then done to the image within the network."""
    spacing, axcodes, cropped = [0.0] * size, None, False
    normalization: tuple[Normalization, dict[str, float]] | None = None
    for step in steps:
        target = step["_target_"]
        if target == "Orientationd" and size == 3:
            axcodes = str(step["axcodes"])
            if len(set(spacing)) > 1:
                raise BadInput(f"Images are resampled before they are turned. {INSTEAD}")
        elif target == "Spacingd":
            pixdim = step["pixdim"] if isinstance(step["pixdim"], list) else [step["pixdim"]] * size
            spacing = [max(0.0, float(mm)) for mm in pixdim[:size]]
        elif target == "CropForegroundd":
            cropped = True  # where the model looks; of no matter, unless the intensities there are looked at next
        elif normalization is None and target in ("ScaleIntensityRanged", *STATISTICS):
            if target in STATISTICS and cropped and not step.get("nonzero"):
                raise BadInput(f"Images are cropped to the foreground before they are normalized. {INSTEAD}")
            if target in STATISTICS[:2] and channels > 1 and not step.get("channel_wise"):
                raise BadInput(f"Channels are normalized together, which RefSeg does one by one. {INSTEAD}")
            normalization = _normalization(step)
        else:
            raise BadInput(f"The transform {target} of the bundle is not known here, or not in that place. {INSTEAD}")
    if normalization is None:
        raise BadInput(f"The bundle does not say how images are normalized. {INSTEAD}")
    return spacing, axcodes, *normalization


def _normalization(step: dict[str, Any]) -> tuple[Normalization, dict[str, float]]:
    target = step["_target_"]
    if target == "NormalizeIntensityd":
        if step.get("subtrahend") is not None or step.get("divisor") is not None:
            raise BadInput(f"{target} with a subtrahend and a divisor cannot be taken over. {INSTEAD}")
        return Normalization(kind="zscore", over="nonzero" if step.get("nonzero") else "all"), {}
    if target == "ScaleIntensityd":
        if step.get("factor") is not None or step.get("minv", 0) is None:
            raise BadInput(f"{target} with a factor cannot be taken over. {INSTEAD}")
        result, (low, high) = Normalization(low=0, high=100), (step.get("minv", 0.0), step.get("maxv", 1.0))
    else:
        if not step.get("clip") or step.get("relative") or step.get("b_min") is None or step.get("b_max") is None:
            raise BadInput(f"{target} can be taken over with clip, b_min and b_max, and not relative. {INSTEAD}")
        low, high = step["b_min"], step["b_max"]
        if target == "ScaleIntensityRanged":
            result = Normalization(kind="window", low=step["a_min"], high=step["a_max"])
        else:
            result = Normalization(low=step["lower"], high=step["upper"], clip=True)
    if (low, high) == (0, 1):
        return result, {}
    return result, {"scale": float(high - low), "offset": float(low)}
