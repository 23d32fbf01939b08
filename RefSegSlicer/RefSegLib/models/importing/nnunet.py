"""A results folder of nnU-Net v2: plans.json, dataset.json, fold_X/checkpoint_final.pth.

What is taken over exactly: the network and its weights, spacing, patch, axes, labels. What is nearly the same:
normalization (nnU-Net does it before resampling and over its own crop), resampling (nnU-Net's is cubic), tiles (nnU-Net
overlaps them by half and also looks at mirrored images).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from RefSegLib.errors import BadInput
from RefSegLib.models.importing.checkpoint import read_checkpoint
from RefSegLib.models.importing.files import labels_named, read_json, results_folders
from RefSegLib.models.networks import build_segmenter, divisors
from RefSegLib.models.nnunet import plan_of
from RefSegLib.models.spec import Network, Normalization, SegmenterSpec

PREFERRED = ("3d_fullres", "2d")
CLASSES = {"PlainConvUNet": "plain", "ResidualEncoderUNet": "residual"}


def import_nnunet(
    path: Path, name: str | None, configuration: str | None = None, fold: str | None = None
) -> tuple[SegmenterSpec, dict[str, torch.Tensor], dict[str, Any]]:
    """The specification, the weights and the origin of a trained nnU-Net.

    configuration: default 3d_fullres, else 2d; fold: a number or "all", default 0. Raises BadInput, saying what to do,
    for whatever could not be taken over exactly.
    """
    folder = _chosen(path, configuration)
    configuration = _configuration(folder)
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    try:
        settings = _inherited(plans["configurations"], configuration)
        spec = _spec(name or plans.get("dataset_name", folder.parent.name), configuration, plans, settings, dataset)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadInput(
            f"The plans in '{folder}' are not those of nnU-Net v2 ({type(error).__name__}: {error}). Models of nnU-Net "
            "v1 have to be trained again, or exported as TorchScript."
        ) from error
    except ValueError as error:  # of pydantic: a name or a number that a specification does not take
        raise BadInput(f"The plans in '{folder}' cannot be taken over: {error}") from error
    if any(size % divisor for size, divisor in zip(spec.patch, divisors(spec), strict=True)):
        raise BadInput(f"The patch {spec.patch} in '{folder}' cannot be divided by the strides, {divisors(spec)}.")
    file = _checkpoint(folder, fold)
    checkpoint = read_checkpoint(file)
    weights = checkpoint.get("network_weights")
    if not isinstance(weights, dict):
        raise BadInput(f"'{file}' is not a checkpoint of nnU-Net v2: it has no network_weights.")
    origin = {
        "format": "nnU-Net v2",
        "dataset": plans.get("dataset_name"),
        "trainer": checkpoint.get("trainer_name"),
        "configuration": configuration,
        "fold": file.parent.name.removeprefix("fold_"),
    }
    return spec, _converted(spec, weights, file), origin


def _chosen(path: Path, configuration: str | None) -> Path:
    folders = results_folders(path)
    fitting = [folder for folder in folders if configuration in (None, _configuration(folder))]
    for preferred in PREFERRED if configuration is None else ():
        fitting = [folder for folder in fitting if _configuration(folder) == preferred] or fitting
    if not fitting:
        there = ", ".join(sorted({_configuration(folder) for folder in folders})) or "none"
        raise BadInput(f"There is no configuration '{configuration}' in '{path}'. Configurations there: {there}.")
    if len(fitting) > 1:
        names = ", ".join(str(folder.relative_to(path)) for folder in fitting)
        raise BadInput(f"There are several trained models in '{path}': {names}. Name the folder of one of them.")
    return fitting[0]


def _configuration(folder: Path) -> str:
    """What the name of a folder Trainer__Plans__CONFIGURATION says."""
    parts = folder.name.split("__")
    if len(parts) != 3:
        raise BadInput(f"'{folder}' is not called TRAINER__PLANS__CONFIGURATION, as nnU-Net does. Restore its name.")
    return parts[2]


def _inherited(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    settings = dict(configurations[name])
    parent = settings.pop("inherits_from", None)
    return (_inherited({k: v for k, v in configurations.items() if k != name}, parent) if parent else {}) | settings


def _spec(
    name: str, configuration: str, plans: dict[str, Any], settings: dict[str, Any], dataset: dict[str, Any]
) -> SegmenterSpec:
    if settings.get("previous_stage"):
        raise BadInput(
            f"'{configuration}' needs the result of '{settings['previous_stage']}' as input, which RefSeg does not "
            "give it. Import 3d_fullres or 3d_lowres instead."
        )
    channels = dataset.get("channel_names") or dataset["modality"]
    names = tuple(str(channels[key]) for key in sorted(channels, key=int))
    labels = {label: value for label, value in dataset["labels"].items() if label not in ("background", "ignore")}
    if any(isinstance(value, list) for value in labels.values()):
        raise BadInput("The model was trained on overlapping regions, whose labels exclude each other in RefSeg.")
    ordered = sorted(labels, key=lambda label: int(labels[label]))
    normalization, affine = _normalization(plans, settings, len(names))
    patch, spacing = [int(n) for n in settings["patch_size"]], [float(n) for n in settings["spacing"]]
    flat = len(patch) == 2
    order = [int(axis) for axis in plans["transpose_forward"]]
    if flat and order[0] != 0:
        raise BadInput(
            f"The model looks at slices along another axis of the image (transpose_forward {order}). Import its 3D "
            "configuration instead."
        )
    aligned = plans.get("image_reader_writer") == "NibabelIOWithReorient"
    letters = "SAR" if aligned else "kji"  # nibabel's RAS turned around, against the axes as they are in the file
    axes = "".join(letters[axis] for axis in order)
    if flat:
        axes, patch, spacing = axes[1:], [1, *patch], [0.0, *spacing]
    backward = [order.index(axis) for axis in range(3)]
    return SegmenterSpec(
        name=name,
        description=f"Imported from nnU-Net: {plans.get('dataset_name', '')} {configuration}".strip(),
        dimensions=2 if flat else 3,
        channels=names,
        labels=labels_named(ordered),
        spacing=tuple(spacing[axis] for axis in backward),
        patch=tuple(patch[axis] for axis in backward),
        aligned=aligned,
        normalization=normalization,
        network=Network(name="nnunet", arguments={**_architecture(settings), "axes": axes, **affine}),
    )


def _normalization(
    plans: dict[str, Any], settings: dict[str, Any], channels: int
) -> tuple[Normalization, dict[str, float]]:
    """Ours, and what is then done to the image within the network."""
    schemes, masks = set(settings["normalization_schemes"]), {bool(m) for m in settings["use_mask_for_norm"]}
    if len(schemes) > 1 or len(masks) > 1:
        raise BadInput(f"The channels are normalized in different ways ({', '.join(sorted(schemes))}); RefSeg has one.")
    scheme, masked = schemes.pop(), masks.pop()
    if scheme == "ZScoreNormalization":
        return Normalization(kind="zscore", over="filled" if masked else "box"), {}
    if scheme == "CTNormalization":
        if channels > 1:
            raise BadInput("Several channels of CT have a window each; RefSeg has one for all of them.")
        seen = plans["foreground_intensity_properties_per_channel"]["0"]
        low, high = float(seen["percentile_00_5"]), float(seen["percentile_99_5"])
        mean, deviation = float(seen["mean"]), max(float(seen["std"]), 1e-8)
        scale, offset = (high - low) / deviation, (low - mean) / deviation
        return Normalization(kind="window", low=low, high=high), {"scale": scale, "offset": offset}
    if scheme == "RescaleTo01Normalization":
        return Normalization(kind="percentile", low=0, high=100), {}
    if scheme == "RGBTo01Normalization":
        return Normalization(kind="window", low=0, high=255), {}
    raise BadInput(f"The images were normalized by {scheme}, which RefSeg does not know.")


def _architecture(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of our network "nnunet". Plans of before nnU-Net 2.3 say the same in other words."""
    if "architecture" in settings:
        class_name = settings["architecture"]["network_class_name"].rsplit(".", 1)[-1]
        given = dict(settings["architecture"]["arch_kwargs"])
    else:
        class_name, stages = settings["UNet_class_name"], len(settings["n_conv_per_stage_encoder"])
        base, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
        given = {
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "kernel_sizes": settings["conv_kernel_sizes"],
            "strides": settings["pool_op_kernel_sizes"],
            "n_conv_per_stage": settings["n_conv_per_stage_encoder"],
            "n_blocks_per_stage": settings["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "InstanceNorm",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "LeakyReLU",
        }
    if class_name not in CLASSES:
        raise BadInput(
            f"The network is a {class_name}; PlainConvUNet and ResidualEncoderUNet can be imported. Export this one as "
            "TorchScript and import that file with a --spec."
        )
    kind = CLASSES[class_name]
    unusual = [key for key in ("nonlin_first", "block", "bottleneck_channels", "stem_channels") if given.get(key)]
    norm, activation = str(given["norm_op"]).rsplit(".", 1)[-1], str(given["nonlin"]).rsplit(".", 1)[-1]
    if not norm.startswith(("InstanceNorm", "BatchNorm")) or activation not in ("LeakyReLU", "ReLU") or unusual:
        raise BadInput(
            f"The network is built in an unusual way ({', '.join([norm, activation, *unusual])}). Export it as "
            "TorchScript and import that file with a --spec."
        )
    stages = len(given["features_per_stage"])
    dimensions = len(settings["patch_size"])
    norm_settings, slope = given.get("norm_op_kwargs") or {}, (given.get("nonlin_kwargs") or {}).get("negative_slope")
    arguments = {
        "kind": kind,
        "features": list(given["features_per_stage"]),
        "kernels": [_each(n, dimensions) for n in _each(given["kernel_sizes"], stages)],
        "strides": [_each(n, dimensions) for n in _each(given["strides"], stages)],
        "blocks": _each(given["n_conv_per_stage" if kind == "plain" else "n_blocks_per_stage"], stages),
        "decoder": _each(given["n_conv_per_stage_decoder"], stages - 1),
        "bias": bool(given.get("conv_bias", False)),
        "norm": "instance" if norm.startswith("Instance") else "batch",
        "eps": float(norm_settings.get("eps", 1e-5)),
        "affine": bool(norm_settings.get("affine", norm.startswith("Batch"))),
        "slope": 0.0 if activation == "ReLU" else float(0.01 if slope is None else slope),
    }
    plan_of(arguments)
    return arguments


def _each(value: int | list[Any], count: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def _checkpoint(folder: Path, fold: str | None) -> Path:
    there = sorted(p.name.removeprefix("fold_") for p in folder.glob("fold_*") if p.is_dir())
    wanted = fold or ("0" if "0" in there or not there else there[0])
    file = folder / f"fold_{wanted}" / "checkpoint_final.pth"
    if not file.is_file():
        raise BadInput(
            f"There is no '{file}'. Folds there: {', '.join(there) or 'none'}; a fold whose training has not ended has "
            "no final checkpoint."
        )
    return file


def _converted(spec: SegmenterSpec, weights: dict[str, Any], file: Path) -> dict[str, torch.Tensor]:
    """The weights under our names: each of nnU-Net's once, without the heads of deep supervision but the finest."""
    weights = {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in weights.items()}
    last = spec.network.arguments["decoder"]
    head, prefix = f"decoder.seg_layers.{len(last) - 1}.", "network.network." if spec.dimensions == 2 else "network."
    found = {}
    for key, value in weights.items():
        # nnU-Net registers its layers again as all_modules, and the encoder again within the decoder.
        if key.startswith("decoder.encoder.") or ".all_modules." in key:
            continue
        if key.startswith("decoder.seg_layers."):
            if not key.startswith(head):
                continue
            key = key.replace(head, "decoder.seg_layer.")
        found[prefix + key] = value
    module = build_segmenter(spec)
    try:
        module.load_state_dict(found)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BadInput(
            f"The weights in '{file}' do not fit the network in plans.json: {' '.join(str(error).split())[:400]}"
        ) from error
    return module.state_dict()
