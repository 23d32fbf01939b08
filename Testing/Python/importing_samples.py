"""Other people's models, small and real, as their own programs write them: for the tests of importing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

INTENSITIES = {"max": 3071.0, "mean": 104.5, "median": 109.0, "min": -1024.0, "percentile_00_5": -55.25}
INTENSITIES |= {"percentile_99_5": 232.0, "std": 41.75}


class Threat:
    """What a malicious file holds: whoever unpickles it runs a program."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (Path.touch, (self.place,))


def architecture(kind="PlainConvUNet", dimensions=3) -> dict:
    """The architecture as nnU-Net's planner writes it, small: anisotropic kernels and strides, uneven depths."""
    three = dimensions == 3
    many = {"n_conv_per_stage": [2, 2, 1]} if kind == "PlainConvUNet" else {"n_blocks_per_stage": [1, 3, 2]}
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 12],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]] if three else [[3, 3]] * 3,
            "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]] if three else [[1, 1], [2, 2], [2, 2]],
            **many,
            "n_conv_per_stage_decoder": [2, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def the_reference(given: dict, channels=2, outputs=3) -> torch.nn.Module:
    """nnU-Net's own network, with deep supervision as in training, and every number of it random."""
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet", reason="nnU-Net's networks")
    kwargs = dict(given["arch_kwargs"])
    dimensions = len(kwargs["strides"][0])
    kwargs |= {
        "conv_op": getattr(torch.nn, f"Conv{dimensions}d"),
        "norm_op": getattr(torch.nn, f"InstanceNorm{dimensions}d"),
        "nonlin": torch.nn.LeakyReLU,
    }
    torch.manual_seed(7)
    network = getattr(unet, given["network_class_name"].rsplit(".", 1)[-1])(
        input_channels=channels, num_classes=outputs, deep_supervision=True, **kwargs
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


def results(place: Path, *, changes=None, configuration="3d_fullres", kind="PlainConvUNet", fold="0", **plans) -> Path:
    """A trainer folder as nnU-Net v2 leaves it behind, with a real network and a real checkpoint."""
    flat = configuration == "2d"
    given = architecture(kind, 2 if flat else 3)
    network = the_reference(given)
    settings = {
        "data_identifier": f"nnUNetPlans_{configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 24] if flat else [8, 16, 24],
        "median_image_size_in_voxels": [40.0, 64.0, 64.0],
        "spacing": [0.75, 0.5] if flat else [3.0, 0.75, 0.5],
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [False, False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "architecture": given,
        "batch_dice": False,
        **(changes or {}),
    }
    content = {
        "dataset_name": "Dataset042_Heart",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 0.75, 0.5],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {configuration: settings},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES, "1": INTENSITIES},
        **plans,
    }
    dataset = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "muscle": 1, "blood": 2, "ignore": 3},
        "numTraining": 32,
        "file_ending": ".nii.gz",
    }
    folder = place / "Dataset042_Heart" / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    (folder / f"fold_{fold}").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 12},
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.mean(np.float32([0.25, 0.75]))],
            "dice_per_class_or_region": [[np.float32(0.25), np.float64(0.75)]],
            "train_losses": [np.float32(-0.5)],
            "epoch_start_timestamps": [1.5],
        },
        "_best_ema": np.float64(0.83),
        "current_epoch": 1000,
        "init_args": {
            "plans": content,
            "configuration": configuration,
            "fold": 0,
            "dataset_json": dataset,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def bundle(place: Path, network: torch.nn.Module, *, script=False, changes=None, transforms=None, **settings) -> Path:
    """A bundle as those of the model zoo: settings by reference, expressions where they do not matter."""
    metadata = {
        "version": "0.5.9",
        "name": "Spleen CT segmentation",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "num_channels": 1,
                    "spatial_shape": [16, 16, 8],
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {"pred": {"num_channels": 2, "channel_def": {"0": "background", "1": "spleen"}}},
        },
    }
    inference = {
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "norm": "batch",
        "network_def": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "channels": [4, 8, 8],
            "strides": [2, 2],
            "num_res_units": 2,
            "norm": "@norm",
            **(changes or {}),
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": transforms
            or [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.25, 2.0], "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    **{"keys": "image", "a_min": -57, "a_max": 164, "b_min": -1, "b_max": 1, "clip": True},
                },
                {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 8], "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        **settings,
    }
    for folder in ("configs", "models"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (place / "configs" / "inference.json").write_text(json.dumps(inference))
    if script:
        torch.jit.trace(network, torch.zeros(1, 1, 16, 16, 8)).save(place / "models" / "model.ts")
    else:
        torch.save({"model": network.state_dict()}, place / "models" / "model.pt")
    return place


def a_unet(outputs=2) -> torch.nn.Module:
    torch.manual_seed(3)
    network = UNet(3, 1, outputs, [4, 8, 8], [2, 2], num_res_units=2, norm="batch")
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(layer.running_mean)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    return network.eval()


def a_spec(**changes) -> dict:
    return {
        "name": "bright",
        "channels": ["MR"],
        "labels": [{"value": 1, "name": "ball", "color": [1, 0, 0]}],
        "spacing": [0, 0, 0],
        "patch": [8, 12, 16],
        "network": {"name": "torchscript", "arguments": {}},
        **changes,
    }


def a_description(folder: Path) -> Path:
    """The file that describes a TorchScript model."""
    file = folder / "spec.json"
    file.write_text(json.dumps(a_spec()))
    return file


class Bright(torch.nn.Module):
    """Finds what is brighter than the middle; says so in one of the ways that networks have."""

    def __init__(self, gives: str) -> None:
        super().__init__()
        self.gives = gives

    def forward(self, x):
        logit = 9 * (x - 0.5)
        if self.gives == "logits":
            return torch.cat([torch.zeros_like(logit), logit], 1)
        if self.gives == "probabilities":
            return torch.cat([torch.sigmoid(-logit), torch.sigmoid(logit)], 1)
        return logit if self.gives == "foreground logit" else torch.sigmoid(logit)


def traced(file: Path, gives: str, patch=(8, 12, 16)) -> Path:
    torch.jit.trace(Bright(gives), torch.zeros(1, 1, *patch)).save(file)
    return file
