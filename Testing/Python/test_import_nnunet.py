"""Models of nnU-Net: taken over exactly, refused in a sentence, and never trusted."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import prepare
from RefSegLib.models.importing import nnunet
from RefSegLib.models.importing.importer import import_model
from RefSegLib.models.networks import build_segmenter, divisors, restored_segmenter
from RefSegLib.models.spec import Normalization, SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

sys.path.insert(0, str(Path(__file__).parent))
from importing_samples import INTENSITIES, Threat, architecture, results, the_reference


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore(tmp_path / "store")


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
