"""Pretraining without masks: its parts are what they say, and a training starts from what it leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.pretraining.encoder import build_decoder, encode, encoder_names, segment_and_encode
from RefSegLib.pretraining.masked import HIDDEN, MaskedAutoencoder, hidden_blocks
from RefSegLib.pretraining.pretrain import UPRIGHT, batches_of, images_by_role, learn, pretrain
from RefSegLib.pretraining.pretrained import find_pretrained, place_of, read_pretrained, write_pretrained
from RefSegLib.pretraining.reconstruction import ReconstructingSegmenter
from RefSegLib.pretraining.sliced_wasserstein import sliced_wasserstein
from RefSegLib.pretraining.tile_autoencoder import TileAutoencoder, cut, joined, orders, tiling
from RefSegLib.progress import Progress
from RefSegLib.training.cases import Sample, pair_cases
from RefSegLib.training.losses import dice_ce, one_hot
from RefSegLib.training.train import started, train
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import image_files, write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume
from safetensors.numpy import save_file
from scipy import ndimage


def disk_spec(dimensions=2, network="unet", filters=(4, 8, 8), patch=None, channels=("X-ray",)) -> SegmenterSpec:
    return SegmenterSpec(
        name="disk",
        dimensions=dimensions,
        channels=channels,
        labels=[{"value": 1, "name": "disk", "color": (1, 0, 0)}],
        spacing=(1, 1, 1),
        patch=patch or ((1, 48, 48) if dimensions == 2 else (16, 16, 16)),
        aligned=False,
        network={"name": network, "arguments": {"filters": list(filters)}},
    )


EVERY_NETWORK = [(d, name) for d in (2, 3) for name in ("unet", "dynunet")]


def disk(seed: int, shape=(1, 48, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A bright disk (ball) on a slope, and its labels."""
    rng = np.random.default_rng(seed)
    center = np.asarray(shape) / 2 + rng.uniform(-3, 3, 3) * (np.asarray(shape) > 1)
    where = np.indices(shape)
    inside = np.linalg.norm(np.moveaxis(where, 0, -1) - center, axis=-1) < min(shape[1:]) / 4
    image = where[-1] / shape[-1] * 0.4 + inside * 0.5 + rng.normal(0, 0.02, shape)
    return ndimage.gaussian_filter(image, 0.5).astype(np.float32), inside.astype(np.uint16)


def sample(seed: int, spec: SegmenterSpec) -> Sample:
    image, labels = disk(seed, spec.patch)
    return Sample(f"s{seed}", spec.normalization(image[None]), labels, (1.0, 1.0, 1.0))


@pytest.fixture
def disk_folders(tmp_path):
    """Twelve patients as files, all roles among them."""
    for seed in range(12):
        image, labels = disk(seed)
        write_image(Volume(image, Grid(image.shape)), tmp_path / "images" / f"case{seed}.nii.gz")
        write_labels(LabelMap(labels.astype(np.uint8), Grid(labels.shape)), tmp_path / "labels" / f"case{seed}.nii.gz")
    return tmp_path / "images", tmp_path / "labels"


# -- the encoder inside a segmenter


@pytest.mark.parametrize(("dimensions", "name"), EVERY_NETWORK)
def test_walking_through_a_segmenter_gives_what_the_segmenter_gives(dimensions, name):
    spec = disk_spec(dimensions, name)
    network = build_segmenter(spec).eval()
    images = torch.rand(2, 1, *spec.patch)
    with torch.inference_mode():
        logits, deepest = segment_and_encode(network, images)
        torch.testing.assert_close(logits, network(images))
        torch.testing.assert_close(deepest, encode(network, images))
    assert deepest.shape[:2] == (2, 8)


@pytest.mark.parametrize(("dimensions", "name"), EVERY_NETWORK)
def test_the_weights_of_the_encoder_are_those_that_its_output_depends_on(dimensions, name):
    spec = disk_spec(dimensions, name)
    network = build_segmenter(spec)
    encode(network, torch.rand(1, 1, *spec.patch)).square().sum().backward()
    moved = {name for name, value in network.named_parameters() if value.grad is not None}
    assert moved == set(encoder_names(network))
    assert moved < set(network.state_dict())


@pytest.mark.parametrize(("dimensions", "name"), EVERY_NETWORK)
def test_the_decoder_draws_images_of_the_size_that_was_encoded(dimensions, name):
    spec = disk_spec(dimensions, name, channels=("a", "b", "c"))
    images = torch.rand(2, 3, *spec.patch)
    assert build_decoder(spec)(encode(build_segmenter(spec), images)).shape == images.shape


def test_a_network_made_elsewhere_is_refused_with_a_sentence():
    spec = disk_spec().model_copy(update={"network": disk_spec().network.model_copy(update={"name": "nnunet"})})
    with pytest.raises(BadInput, match="made elsewhere"):
        build_decoder(spec)


# -- tiles


@pytest.mark.parametrize("dimensions", [2, 3])
def test_tiles_put_together_again_are_the_image(dimensions):
    spec = disk_spec(dimensions)
    grid, tile = tiling(spec)
    images = torch.rand(2, 1, *spec.patch)
    tiles = cut(images, grid, tile)
    assert tiles.shape[1] == (9 if dimensions == 2 else 8)
    torch.testing.assert_close(joined(tiles, grid), images)
    assert torch.equal(tiles[0, 1], images[0, :, : tile[0], : tile[1], tile[2] : 2 * tile[2]])


def test_a_rim_that_cannot_be_cut_evenly_is_left_out_on_both_sides():
    grid, tile = tiling(disk_spec(patch=(1, 64, 64)))
    assert (grid, tile) == ((1, 3, 3), (1, 20, 20))
    images = torch.arange(64.0).expand(1, 1, 1, 64, 64)
    assert joined(cut(images, grid, tile), grid)[0, 0, 0, 0].tolist() == list(range(2, 62))


def test_a_patch_too_small_for_tiles_is_refused_with_a_sentence():
    with pytest.raises(BadInput, match="too small to cut into tiles"):
        tiling(disk_spec(patch=(1, 8, 8)))


def test_orders_begin_with_the_natural_one_and_differ_much():
    nine, four = orders(9), orders(4)
    assert nine.shape == (101, 9) and four.shape == (24, 4)
    assert nine[0].tolist() == list(range(9))
    assert (np.sort(nine, 1) == np.arange(9)).all()
    apart = (nine[:, None] != nine[None]).sum(2)
    assert apart[~np.eye(101, dtype=bool)].min() >= 6


def test_the_order_of_tiles_is_told_by_the_loss():
    spec = disk_spec()
    torch.manual_seed(0)
    module = TileAutoencoder(build_segmenter(spec), spec)
    images = torch.stack([torch.from_numpy(sample(seed, spec).image) for seed in range(2)])
    order = torch.tensor([0, 5])
    mosaic = joined(module.mosaic(images, order), module.grid)
    drawn, told, latents = module(images, order)
    assert torch.equal(mosaic[0], images[0]) and not torch.equal(mosaic[1], images[1])
    assert drawn.shape == mosaic.shape and told.shape == (2, 101) and latents.shape[:3] == (2, 9, 8)
    torch.testing.assert_close(mosaic[1].sort().values.sum(), images[1].sort().values.sum())


# -- sliced Wasserstein


def test_a_normal_cloud_is_near_and_a_shifted_or_narrow_one_far():
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(3, 1000, 16, generator=generator)
    near = sliced_wasserstein(cloud, generator)
    shifted = sliced_wasserstein(cloud + torch.tensor([2.0] + 15 * [0.0]), generator, 500)
    narrow = sliced_wasserstein(cloud * 0.5, generator)
    assert near.shape == (3,) and near.max() < 0.02
    assert shifted.mean() == pytest.approx(4 / 16, rel=0.35)  # a shift of 2 along one axis of 16, seen from anywhere
    assert narrow.mean() == pytest.approx(0.25, rel=0.1)  # (1 - 0.5)^2


def test_points_are_drawn_towards_the_normal_by_its_gradient():
    points = torch.full((64, 4), 3.0) + torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    points.requires_grad_()
    optimizer = torch.optim.Adam([points], 0.1)
    for step in range(100):
        optimizer.zero_grad()
        loss = sliced_wasserstein(points, torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
    assert abs(float(points.detach().mean())) < 0.2 and float(points.detach().std()) == pytest.approx(1, abs=0.2)


# -- masked autoencoding


def test_three_quarters_of_the_blocks_are_hidden_and_only_those_count():
    spec = disk_spec()
    hidden = hidden_blocks(torch.Size((3, 1, *spec.patch)), (1, 4, 4), torch.Generator().manual_seed(0))
    assert hidden.float().mean((1, 2, 3, 4)).tolist() == pytest.approx([HIDDEN] * 3)
    module = MaskedAutoencoder(spec)
    images = torch.rand(3, 1, *spec.patch)
    drawn = module(images, hidden)
    elsewhere = torch.where(hidden, images, drawn)  # perfect where it counts
    module.forward = lambda *_: elsewhere
    assert float(module.loss(images, images, hidden).detach()) == 0.0


def test_what_is_hidden_cannot_be_seen():
    spec = disk_spec()
    module = MaskedAutoencoder(spec).eval()
    hidden = hidden_blocks(torch.Size((1, 1, *spec.patch)), (1, 4, 4), torch.Generator().manual_seed(0))
    images = torch.rand(1, 1, *spec.patch)
    with torch.inference_mode():
        torch.testing.assert_close(module(images, hidden), module(torch.where(hidden, 7.0, images), hidden))


@pytest.mark.parametrize("name", ["unet", "dynunet"])
def test_all_but_the_output_layer_is_kept_of_masked_autoencoding(name):
    spec = disk_spec(network=name)
    module = MaskedAutoencoder(spec)
    kept, everything = set(module.kept()), set(build_segmenter(spec).state_dict())
    assert set(encoder_names(build_segmenter(spec))) < kept < everything


# -- learning, storing, starting from it


@pytest.mark.parametrize("method", [MaskedAutoencoder, lambda spec: TileAutoencoder(build_segmenter(spec), spec)])
def test_what_is_seen_is_varied_and_what_is_to_be_drawn_is_not(method):
    spec = disk_spec()
    samples = [sample(seed, spec) for seed in range(8)]
    torch.manual_seed(0)
    module = method(spec).eval()
    images, seen, *more = next(iter(batches_of(spec, module, 0)(samples, UPRIGHT)(0)))
    known = torch.stack([torch.from_numpy(s.image) for s in samples])
    assert all((image - known).abs().amax((1, 2, 3, 4)).min() < 1e-5 for image in images)  # as they are in the file
    changed = (seen - images).abs().amax((1, 2, 3, 4)) > 0.02
    assert changed.float().mean() > 0.5
    with torch.inference_mode():
        assert module.loss(images, seen, *more) != module.loss(seen, seen, *more)
        shown = module.shown(images, seen, *more)
    assert torch.equal(shown["image"], images) and all(picture.shape == images.shape for picture in shown.values())


@pytest.mark.parametrize("method", ["tiles", "masked"])
def test_pretraining_learns_and_a_killed_one_goes_on_to_the_same_weights(method, tmp_path):
    spec = disk_spec()
    both = [sample(seed, spec) for seed in range(8)], [sample(seed, spec) for seed in range(20, 22)]
    whole, fitted, kept = learn(spec, *both, method=method, epochs=6, seed=0)
    assert fitted.history[-1]["score"] > fitted.history[0]["score"]
    calls = iter(range(1000))

    def stop_later(fraction, message):
        if next(calls) == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        learn(spec, *both, method=method, epochs=6, seed=0, checkpoint=tmp_path / "c", progress=Progress(stop_later))
    assert (tmp_path / "c").exists()
    again, _, _ = learn(spec, *both, method=method, epochs=6, seed=0, checkpoint=tmp_path / "c")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert kept == set(whole.kept())


@pytest.mark.parametrize("method", ["tiles", "masked"])
def test_pretraining_learns_in_three_dimensions(method):
    spec = disk_spec(3, "dynunet", channels=("a", "b", "c"))
    both = [
        [
            Sample(s.name, np.concatenate([s.image] * 3), s.labels, s.spacing)
            for s in (sample(seed, spec) for seed in some)
        ]
        for some in (range(4), range(20, 22))
    ]
    module, fitted, kept = learn(spec, *both, method=method, epochs=2, seed=0)
    assert fitted.history[-1]["score"] > fitted.history[0]["score"]
    weights = {name: value.numpy() for name, value in module.network.state_dict().items() if name in kept}
    begun = started(build_segmenter, spec, 0, weights, whole=True).state_dict()
    assert all(torch.equal(begun[name], torch.from_numpy(value)) for name, value in weights.items())


def test_a_training_starts_from_what_was_pretrained_and_stores_no_branch(disk_folders, tmp_path):
    spec, store = disk_spec(), ModelStore(tmp_path / "home")
    images, labels = disk_folders
    file = pretrain(spec, image_files(images), store.home, name="disks", epochs=2, seed=0)
    before = read_pretrained(file)
    assert file == find_pretrained(store.home, "disks") == find_pretrained(store.home, str(file))
    assert before.about.method == "tiles" and before.about.data["images"]["train"] > 0
    assert (store.home / "reports" / "pretrained-disks" / "report.html").exists()
    assert not list((store.home / "training").glob("*"))  # nothing is left of the work
    fresh = started(build_segmenter, spec, 0, before.weights, whole=True).state_dict()
    assert all(np.array_equal(fresh[name].cpu(), value) for name, value in before.weights.items())

    version = train(spec, pair_cases(images, labels), store, init=before, reconstruction=True, epochs=2, seed=0)
    page = (store.home / "reports" / "disk-1" / "report.html").read_text()
    assert "the pretrained encoder &#x27;disks&#x27;" in page and "Validation cases" in page
    assert set(version.segmenter()) == set(build_segmenter(spec).state_dict())
    settings = version.manifest.settings
    assert settings["reconstruction"] and settings["pretrained"]["digest"] == before.about.digest
    assert version.manifest.parent is None and version.manifest.scores["test"]["mean"]["dice"] >= 0


def test_the_branch_adds_a_tenth_of_its_error_to_the_loss_and_changes_no_mask():
    spec = disk_spec()
    segmenter = build_segmenter(spec).eval()
    module = ReconstructingSegmenter(segmenter, spec, seed=0).eval()
    images, labels = torch.rand(2, 1, *spec.patch), torch.randint(0, 2, (2, *spec.patch))
    with torch.inference_mode():
        torch.testing.assert_close(module(images), segmenter(images))
        wrong = module.decoder(encode(segmenter, images)) - images
        expected = dice_ce(segmenter(images), one_hot(labels, 2)) + 0.1 * (wrong.abs().mean() + wrong.square().mean())
        torch.testing.assert_close(module.loss(images, labels), expected)


def test_test_patients_are_not_looked_at(disk_folders):
    images, _ = disk_folders
    files = image_files(images)
    roles = images_by_role(files)
    assert sorted(file for some in roles.values() for file in some) == sorted(files)
    (roles["test"][0]).write_bytes(b"not an image")  # nobody notices
    home = images.parent / "home"
    assert pretrain(disk_spec(), files, home, name="disks", epochs=1, seed=0).exists()


def test_too_few_patients_are_refused_with_a_sentence(disk_folders):
    images, _ = disk_folders
    with pytest.raises(BadInput, match="Add more patients"):
        images_by_role(image_files(images)[:1])


# -- the file


WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}


def written(home: Path, name="mine") -> Path:
    spec = disk_spec()
    told = {"network": spec.network.model_dump(), "data": {}, "settings": {}, "method": "tiles", "name": name}
    told |= {key: getattr(spec, key) for key in ("channels", "dimensions", "spacing", "patch", "normalization")}
    return write_pretrained(home, WEIGHTS, **told)


def test_a_pretrained_encoder_is_one_file_that_can_be_handed_over(tmp_path):
    file = written(tmp_path)
    elsewhere = tmp_path / "elsewhere.safetensors"
    file.rename(elsewhere)
    found = read_pretrained(find_pretrained(tmp_path, str(elsewhere)))
    assert np.array_equal(found.weights["a"], WEIGHTS["a"]) and found.about.name == "mine"


def test_a_name_that_is_taken_or_none_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(BadInput, match="already"):
        written(tmp_path)
    with pytest.raises(BadInput, match="cannot be the name"):
        written(tmp_path, "../mine")
    assert [file.name for file in place_of(tmp_path, "x").parent.iterdir()] == ["mine.safetensors"]


def test_damage_is_found(tmp_path):
    file = written(tmp_path)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RefSegError, match="changed or damaged"):
        read_pretrained(file)
    file.write_bytes(content[:-4])
    with pytest.raises(BadInput, match="damaged"):
        read_pretrained(file)
    save_file(WEIGHTS, file)
    with pytest.raises(BadInput, match="none that refseg pretrain has made"):
        read_pretrained(file)


def test_weights_of_another_network_are_refused_whole(tmp_path):
    module = TileAutoencoder(build_segmenter(disk_spec(filters=(8, 16, 16))), disk_spec(filters=(8, 16, 16)))
    weights = {name: module.network.state_dict()[name].numpy() for name in module.kept()}
    with pytest.raises(BadInput, match="another network"):
        started(build_segmenter, disk_spec(), 0, weights, whole=True)


def test_the_command_pretrains_and_says_what_to_do_next(disk_folders, tmp_path):
    from RefSegLib.cli import app
    from typer.testing import CliRunner

    images, _ = disk_folders
    (tmp_path / "spec.json").write_text(disk_spec().model_dump_json())
    home = str(tmp_path / "home")
    told = ["--spec", str(tmp_path / "spec.json"), "--images", str(images), "--name", "disks", "--store", home]
    result = CliRunner().invoke(app, ["pretrain", *told, "--epochs", "1", "--report", str(tmp_path / "r.json")])
    assert result.exit_code == 0, result.output
    assert "refseg train --init disks" in result.output
    assert json.loads((tmp_path / "r.json").read_text())["name"] == "disks"
    refused = CliRunner().invoke(app, ["pretrain", *told, "--method", "magic"])
    assert isinstance(refused.exception, BadInput)
