"""A synthesizer for somebody else's model: the segmenter stays byte for byte, and reflection becomes possible."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from InteractiveLearningLib import cli
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.models.importing.importer import import_model
from RefSegLib.models.networks import build_synthesizer, synthesizer_divisors
from RefSegLib.models.spec import Normalization, SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.reflection.judge import Judge
from RefSegLib.synthesis.synthesizer import Synthesizer, gray, load_synthesizer
from RefSegLib.training.cases import load_samples, pair_cases
from RefSegLib.training.split import split_of
from RefSegLib.training.synthesizer import USUAL, add_synthesizer, with_synthesizer
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume

SPEC = {
    "name": "bright",
    "channels": ["MR"],
    "labels": [{"value": 1, "name": "ball", "color": [1, 0, 0]}],
    "spacing": [1, 1, 1],
    "patch": [14, 16, 16],
    "normalization": {"kind": "zscore"},
    "network": {"name": "torchscript", "arguments": {"gives": "foreground probability", "axes": "LPS"}},
}


class Bright(torch.nn.Module):
    """Finds what is much brighter than the rest, as somebody else's network would: it knows no other image."""

    def forward(self, x):
        return torch.sigmoid(6 * (torch.nn.functional.avg_pool3d(x, 3, 1, 1) - 1))


@pytest.fixture(scope="module")
def the_place(tmp_path_factory):
    """A folder with images and masks of balls, and a store with the network as it was imported."""
    place = tmp_path_factory.mktemp("foreign")
    roles = {role: [n for n in range(40) if split_of(f"p{n:03d}") == role] for role in ("train", "validation", "test")}
    for n in roles["train"][:7] + roles["validation"][:3] + roles["test"][:2]:
        rng = np.random.default_rng(n)
        grid = Grid((15, 17, 16), origin=(5.0, -7.0, 30.0))
        at = np.moveaxis(np.indices(grid.shape), 0, -1) - rng.uniform(6, 9, 3)
        inside = np.linalg.norm(at, axis=-1) < rng.uniform(3.5, 5)
        image = (inside * 100 + rng.normal(0, 5, grid.shape) + 40).astype(np.float32)
        write_image(Volume(image, grid), place / "images" / f"p{n:03d}.nii.gz")
        write_labels(LabelMap(inside.astype(np.uint8), grid), place / "labels" / f"p{n:03d}.nii.gz")
    (place / "spec.json").write_text(json.dumps(SPEC))
    torch.jit.trace(Bright(), torch.zeros(1, 1, 16, 16, 14)).save(place / "bright.pt")
    import_model(place / "bright.pt", ModelStore(place / "imported"), spec=place / "spec.json")
    return place


@pytest.fixture
def store(the_place, tmp_path) -> ModelStore:
    shutil.copytree(the_place / "imported", tmp_path / "store")
    return ModelStore(tmp_path / "store")


@pytest.fixture
def cases(the_place):
    return pair_cases(the_place / "images", the_place / "labels")


@pytest.fixture(scope="module")
def the_trained(the_place):
    """The store after `refseg train-synthesizer`, as a person types it."""
    shutil.copytree(the_place / "imported", the_place / "store")
    words = ["train-synthesizer", "--model", "bright", "--images", f"{the_place}/images", "--labels"]
    words += [f"{the_place}/labels", "--epochs", "10", "--store", f"{the_place}/store"]
    before, sys.argv = sys.argv, ["refseg", *words]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code
    finally:
        sys.argv = before
    return ModelStore(the_place / "store")


def test_the_new_version_has_the_same_segmenter_and_what_it_lacked(the_trained):
    before, after = (the_trained.load("bright", number) for number in "12")
    assert after.segmenter_bytes() == before.segmenter_bytes()
    assert after.manifest.parent == "bright@1"
    assert after.manifest.data["imported"] == before.manifest.data["imported"]
    assert after.spec == before.spec.model_copy(update={"synthesizer": USUAL})
    assert after.manifest.reflection["candidates"]
    assert after.manifest.scores["test"]["mean"]["dice"] > 0.8
    assert after.manifest.scores["synthesizer"]["validation"]["ssim"] > 0.3
    assert the_trained.active("bright") == "2"


def test_the_model_now_reflects(the_trained, the_place):
    engine = Engine(the_trained.load("bright"), "cpu")
    found = engine.segment(read_image(next((the_place / "images").iterdir())), reflect=True)
    reflection = found.regions[0].reflection
    assert reflection.proxy.shape == found.regions[0].array.shape[1:]
    assert np.isfinite(reflection.similarity_before)


def test_a_proxy_and_the_image_it_is_compared_with_have_one_range(the_trained, cases):
    version = the_trained.load("bright")
    sample = load_samples(cases[0], version.spec)[0]
    image = gray(sample.image, version.spec)
    assert sample.image.max() > 1.5 and np.percentile(image, (0.5, 99.5)) == pytest.approx((0, 1), abs=1e-5)
    synthesizer = load_synthesizer(version)
    region = sample.labels > 0
    judge = Judge(sample.image, region, synthesizer)
    np.testing.assert_allclose(judge.image[0, 0].numpy(), image[judge.box], atol=1e-6)
    masks = np.stack([~region, region]).astype(np.float32)
    proxy = synthesizer.proxy(masks)
    drawn = proxy[region].mean()
    assert abs(drawn - image[region].mean()) < abs(drawn - sample.image[0][region].mean()) / 2
    assert judge(masks).ssim > judge(np.roll(masks, 4, axis=2)).ssim


def test_images_of_other_models_are_compared_as_they_are():
    image = np.random.default_rng(0).uniform(-0.4, 1.4, (2, 3, 4, 5)).astype(np.float32)
    for kind in ("percentile", "window"):
        spec = SegmenterSpec.model_validate(SPEC | {"normalization": {"kind": kind}})
        np.testing.assert_array_equal(gray(image, spec), image.mean(0))


def test_a_training_that_was_stopped_comes_to_the_same_synthesizer(store, cases):
    def stop_in_the_second_epoch(fraction, message):
        if message.startswith("epoch 2"):
            raise Cancelled

    start = store.load("bright")
    with pytest.raises(Cancelled):
        add_synthesizer(start, cases, store, epochs=2, seed=5, progress=Progress(stop_in_the_second_epoch))
    assert store.versions("bright") == ["1"]
    assert list((store.home / "training").rglob("synthesizer.checkpoint"))
    seen = []
    resumed = add_synthesizer(
        start, cases, store, epochs=2, seed=5, progress=Progress(lambda fraction, message: seen.append(message))
    )
    assert not any(message.startswith("epoch 1 ") for message in seen)
    assert not list((store.home / "training").iterdir())
    whole = add_synthesizer(start, cases, store, epochs=2, seed=5)
    for name, weights in whole.synthesizer().items():
        np.testing.assert_allclose(resumed.synthesizer()[name], weights, atol=1e-5)
    # The active version reflects already: a second synthesizer waits to be activated.
    assert (whole.version, store.active("bright")) == ("3", "2")


def test_masks_the_model_does_not_know_are_refused_and_nothing_is_added(store, tmp_path, the_place):
    shutil.copytree(the_place / "images", tmp_path / "images")
    shutil.copytree(the_place / "labels", tmp_path / "labels")
    cases = pair_cases(tmp_path / "images", tmp_path / "labels")
    spoiled = next(case for case in cases if case.role == "train")
    grid = read_image(spoiled.image).grid
    write_labels(LabelMap(np.full(grid.shape, 4, np.uint8), grid), spoiled.labels)
    with pytest.raises(BadInput, match=rf"{spoiled.name}.*does not know"):
        add_synthesizer(store.load("bright"), cases, store, epochs=1, seed=0)
    assert store.versions("bright") == ["1"]


def test_a_patch_of_odd_size_is_halved_where_it_can_be():
    spec = with_synthesizer(SegmenterSpec.model_validate(SPEC | {"patch": [25, 36, 20]}))
    assert synthesizer_divisors(spec) == (1, 4, 4)
    synthesizer = Synthesizer(spec, build_synthesizer(spec))
    assert synthesizer.proxy(np.zeros((2, 25, 36, 20), np.float32)).shape == (25, 36, 20)
    with pytest.raises(BadInput, match="train-synthesizer"):
        build_synthesizer(SegmenterSpec.model_validate(SPEC))


def test_models_with_a_network_of_ours_keep_the_synthesizer_they_would_have():
    network = {"name": "unet", "arguments": {"filters": [4, 8, 8, 8]}}
    ours = SegmenterSpec.model_validate(SPEC | {"network": network, "patch": [16, 16, 16]})
    assert with_synthesizer(ours) == ours
    assert Normalization.model_validate({"kind": "zscore", "low": 0.5, "high": 99.5}) == Normalization(kind="zscore")
