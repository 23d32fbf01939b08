"""What a model says of itself."""

import json

import numpy as np
import pytest
from pydantic import ValidationError
from RefSegLib.models.spec import Code, Label, Normalization, Region, SegmenterSpec, TemplateBox

VALUES = {
    "name": "hippocampus-t1",
    "channels": ["T1"],
    "labels": [
        {"value": 1, "name": "Anterior", "color": [0.9, 0.6, 0.1], "type": {"value": "1", "meaning": "x"}},
        {"value": 2, "name": "Posterior", "color": [0, 0.5, 1]},
    ],
    "spacing": [1, 1, 1],
    "patch": [32, 48, 32],
    "network": {"name": "unet", "arguments": {"features": 16}},
}


def test_a_spec_survives_json():
    box = TemplateBox(lower=(0, 0, 0), upper=(1, 2, 3), side="left", offset=2, mirrored=True)
    region = Region(kind="template", template="mni", boxes=(box,))
    spec = SegmenterSpec(**VALUES, region=region)
    assert SegmenterSpec.model_validate_json(spec.model_dump_json()) == spec
    assert json.loads(spec.model_dump_json())["labels"][0]["type"]["scheme"] == "SCT"


def test_outputs_are_the_background_and_the_labels():
    assert SegmenterSpec(**VALUES).outputs == 3


@pytest.mark.parametrize(
    "change",
    [
        {"labels": []},
        {"labels": [{"value": 2, "name": "x", "color": [0, 0, 0]}]},
        {"labels": VALUES["labels"][::-1]},
        {"labels": [{"value": 1, "name": "", "color": [0, 0, 0]}]},
        {"labels": [{"value": 1, "name": "x", "color": [0, 0, 255]}]},
        {"channels": []},
        {"name": "../escape"},
        {"name": ""},
        {"spacing": [1, -1, 1]},
        {"spacing": [1, float("inf"), 1]},
        {"patch": [0, 8, 8]},
        {"patch": [8, 8]},
        {"dimensions": 2},
        {"dimensions": 4},
        {"region": {"kind": "template"}},
        {"region": {"kind": "template", "template": "mni"}},
        {"region": {"kind": "whole", "template": "mni"}},
        {"unknown": 1},
        {"region": {"boxes": [{"lower": [0, 0, 0], "upper": [1, 1, 1]}]}},
        {"normalization": {"kind": "sqrt"}},
    ],
    ids=str,
)
def test_a_spec_that_contradicts_itself_is_refused(change):
    SegmenterSpec(**VALUES)
    key = next(iter(change))
    with pytest.raises(ValidationError, match=key):
        SegmenterSpec(**{**VALUES, **change})


def test_a_network_of_slices_has_patches_of_one_slice():
    spec = SegmenterSpec(**{**VALUES, "dimensions": 2, "patch": [1, 64, 64], "spacing": [0, 1, 1]})
    assert spec.patch[0] == 1


def test_a_spec_cannot_be_changed_once_made():
    with pytest.raises(ValidationError, match="frozen"):
        SegmenterSpec(**VALUES).name = "other"


def test_an_empty_box_is_refused():
    with pytest.raises(ValidationError, match="empty"):
        TemplateBox(lower=(0, 5, 0), upper=(1, 5, 1))


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "window", "low": 40, "high": 40},
        {"kind": "window", "low": 400, "high": -160},
        {"low": 99, "high": 1},
        {"low": -1, "high": 99},
        {"low": 1, "high": 101},
    ],
    ids=str,
)
def test_a_normalization_without_a_range_is_refused(arguments):
    with pytest.raises(ValidationError):
        Normalization(**arguments)


def test_a_window_brings_hounsfield_units_to_0_and_1_and_clips():
    found = Normalization(kind="window", low=-160, high=240)(np.array([-1000, -160, 40, 240, 3000]).reshape(1, 1, 1, 5))
    np.testing.assert_allclose(found.ravel(), [0, 0, 0.5, 1, 1], atol=1e-6)
    assert found.dtype == np.float32


def test_percentiles_are_taken_per_channel_and_hardly_move_with_a_few_hot_voxels():
    array = np.random.default_rng(0).normal(100, 20, (2, 20, 20, 20))
    array[1] *= 7
    plain = Normalization()(array)
    for channel, source in zip(plain, array, strict=True):
        low, high = np.percentile(source, (0.5, 99.5))
        np.testing.assert_allclose(channel, np.clip((source - low) / (high - low), -0.5, 1.5), atol=1e-4)
    array[:, 0, 0, 0] = 1e6
    hot = Normalization()(array)
    np.testing.assert_allclose(hot[:, 1:], plain[:, 1:], atol=0.02)
    assert hot.max() == 1.5


def test_zscores_have_mean_0_and_deviation_1():
    found = Normalization(kind="zscore")(np.random.default_rng(0).gamma(2, 50, (2, 12, 12, 12)))
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), 1, atol=1e-4)


@pytest.mark.parametrize("kind", ["percentile", "zscore", "window"])
def test_a_constant_region_gives_numbers_and_the_image_is_left_alone(kind):
    array = np.full((1, 4, 4, 4), 70, np.int16)
    assert np.isfinite(Normalization(kind=kind)(array)).all()
    assert (array == 70).all() and array.dtype == np.int16


def test_labels_are_anatomy_unless_told_otherwise():
    label = Label(value=1, name="Liver", color=(0.5, 0.2, 0.1), type=Code(value="10200004", meaning="Liver"))
    assert (label.category.scheme, label.category.value) == ("SCT", "123037004")
