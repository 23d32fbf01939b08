import json
import re

import cv2
import numpy as np
import pytest
import torch
from InteractiveLearningLib.cli import app
from RefSegLib.bootstrapping import bootstrap as bootstrapping
from RefSegLib.bootstrapping import rounds as learning
from RefSegLib.bootstrapping.cyclegan import GanSettings, train_cyclegan
from RefSegLib.bootstrapping.mask_pool import MaskPool, Variation, ellipse_pool, file_pool
from RefSegLib.bootstrapping.mask_shapes import as_ellipse, cleaned
from RefSegLib.bootstrapping.mask_vae import plausibility, train_mask_vae
from RefSegLib.bootstrapping.pictures import read_pictures, spec_of
from RefSegLib.bootstrapping.poses import inverse, posed, random_poses
from RefSegLib.bootstrapping.rounds import (
    FLOOR,
    RoundSettings,
    bootstrap_rounds,
    pseudo_labels,
    starting_labels,
    weights_of,
)
from RefSegLib.bootstrapping.selection import chosen, quality
from RefSegLib.bootstrapping.shape_prior import EllipsePrior, draw_ellipses
from RefSegLib.bootstrapping.template import match, prominence
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.training.split import split_of
from RefSegLib.volume.io import read_image
from typer.testing import CliRunner

PRIOR = EllipsePrior(size=(0.35, 0.6), aspect=(0.6, 1), center_x=(0.4, 0.6), center_y=(0.4, 0.6), roughness=(0, 0))
FRAME = (32, 32)


def disc_pictures(count, seed=0):
    """Bright ellipses on gray, with noise: images and masks (n, 32, 32)."""
    generator = np.random.default_rng(seed)
    masks = draw_ellipses(PRIOR, FRAME, count, generator)
    images = 0.35 + 0.4 * masks + 0.06 * generator.normal(size=masks.shape)
    return np.clip(images, 0, 1).astype(np.float32), masks > 0.5


def disc_files(folder, count=40):
    images, masks = disc_pictures(count)
    for kind, arrays in (("images", images * 255), ("masks", masks * 255)):
        (folder / kind).mkdir(parents=True)
        for number, array in enumerate(arrays):
            cv2.imwrite(str(folder / kind / f"p{number:02d}.png"), array.astype(np.uint8))
    return folder / "images", folder / "masks"


@pytest.fixture(scope="module")
def disc_vae():
    return train_mask_vae(ellipse_pool(PRIOR, FRAME, 0), FRAME, steps=250, seed=0)


def test_poses_are_undone_by_their_inverse():
    _, masks = disc_pictures(4)
    masks = torch.from_numpy(masks[:, None]).float()
    poses = random_poses(4, FRAME, 0.1, 20, 0.1, torch.Generator().manual_seed(0))
    moved = posed(masks, poses, "zeros")
    back = posed(moved, inverse(poses), "zeros")
    assert (moved - masks).abs().mean() > 0.05
    assert (back - masks).abs().mean() < 0.02


def test_a_mask_keeps_its_largest_parts_without_holes():
    mask = np.zeros((30, 30), bool)
    mask[2:12, 2:12] = mask[15:25, 15:25] = mask[28, 28] = True
    mask[5, 5] = False
    one, two = cleaned(mask, 1), cleaned(mask, 2)
    assert two[5, 5] and not two[28, 28] and two.sum() == 200
    assert one.sum() == 100


def test_a_ragged_mask_becomes_the_ellipse_in_its_place_with_its_area():
    whole = draw_ellipses(PRIOR, (64, 64), 1, np.random.default_rng(0))[0] > 0.5
    border = cv2.dilate(whole.astype(np.uint8), np.ones((7, 7))) - cv2.erode(whole.astype(np.uint8), np.ones((7, 7)))
    ragged = np.where(border > 0, np.random.default_rng(0).random(whole.shape) < 0.5, whole)

    def dice(one, other):
        return 2 * (one & other).sum() / (one.sum() + other.sum())

    again = as_ellipse(ragged)
    assert dice(again, whole) > dice(ragged, whole)
    assert abs(again.sum() / ragged.sum() - 1) < 0.03
    assert dice(as_ellipse(whole), whole) > 0.98
    assert not as_ellipse(np.zeros((8, 8), bool)).any()


def test_the_vae_knows_the_shapes_it_saw_from_those_it_did_not(disc_vae):
    known = torch.from_numpy(draw_ellipses(PRIOR, FRAME, 20, np.random.default_rng(5)))[:, None]
    halves = known.clone()
    halves[..., 16:] = 0
    stripes = torch.zeros_like(known)
    stripes[..., ::4] = 1
    seems = [float(plausibility(disc_vae, masks).mean()) for masks in (known, halves, stripes, torch.zeros_like(known))]
    assert seems[0] > 0.8
    assert seems[0] > seems[1] + 0.1 and seems[0] > seems[2] + 0.3
    assert seems[3] == pytest.approx(0, abs=1e-3)


def test_selection_finds_the_labels_that_were_spoilt(disc_vae):
    _, masks = disc_pictures(40)
    labels = torch.from_numpy(masks[:, None]).float()
    labels[:8, :, :, :16] = 0
    labels[:4] = 0
    good = chosen(quality(labels, torch.from_numpy(masks[:, None]).float(), disc_vae), torch.ones(40).bool(), 0.8)
    assert good.sum() == 32 and not good[:8].any()
    few = torch.arange(40) % 2 == 0
    assert (chosen(torch.rand(40), few, 0.5) & ~few).sum() == 0
    assert torch.equal(chosen(torch.rand(40), few, 1.0), few)


def test_pixels_on_which_the_second_opinion_differs_weigh_least(disc_vae):
    _, masks = disc_pictures(3)
    found = torch.from_numpy(masks[:, None]).float() * 0.98 + 0.01
    other = found.clone()
    other[:, :, :8] = 1
    pseudo = pseudo_labels(found, disc_vae, ellipse_pool(PRIOR, FRAME, 0), other)
    weights = weights_of(pseudo)
    wrong = (other - pseudo.labels).abs() > 0.5
    assert wrong.any() and (weights[wrong] == FLOOR).all() and weights[~wrong].min() > 0.9


def ring_pictures(count):
    """Ellipses (n, 1, 32, 32) and images that show nothing but their bright rims, with noise."""
    generator = np.random.default_rng(3)
    masks = draw_ellipses(PRIOR, FRAME, count, generator)
    rims = np.stack([np.clip(4 * m * (1 - m) + cv2.morphologyEx(m, cv2.MORPH_GRADIENT, None), 0, 1) for m in masks])
    images = (0.3 + 0.4 * rims + 0.06 * generator.normal(size=rims.shape)).clip(0, 1).astype(np.float32)
    return torch.from_numpy(images)[:, None], torch.from_numpy((masks > 0.5)[:, None]).float()


def mean_dice(one, other):
    return float((2 * (one * other).sum((1, 2, 3)) / (one + other).sum((1, 2, 3))).mean())


@pytest.mark.parametrize("kind", ["bright rim", "dark rim", "bright area", "dark area"])
def test_shapes_are_found_by_borders_of_any_kind(kind):
    images, truth = ring_pictures(8)
    if "area" in kind:
        images = torch.from_numpy(disc_pictures(8)[0])[:, None]
        truth = torch.from_numpy(disc_pictures(8)[1])[:, None].float()
    images = 1 - images if "dark" in kind else images
    elsewhere = 0.8 * torch.roll(truth, 1, 3)  # what another source found is a pixel off
    template = match(images, elsewhere, ellipse_pool(PRIOR, FRAME, 0), 0)
    assert template.kind == kind
    assert mean_dice(template.alone, truth) > 0.85


def test_borders_tell_which_labels_lie_on_something():
    images, truth = ring_pictures(12)
    pool = ellipse_pool(PRIOR, FRAME, 0)
    moved = [torch.roll(truth, pixels, 3) for pixels in (0, 2, 4)]
    stands = [float(prominence(images, labels, pool, "bright rim", 0).mean()) for labels in moved]
    assert stands[0] > stands[1] > stands[2] and stands[0] > 1.5
    assert float(prominence(images, truth, pool, "dark rim", 0).mean()) < -1.5


def test_good_are_the_images_on_which_both_sources_agree():
    images, truth = ring_pictures(12)
    found = 0.9 * truth
    found[:4] = torch.roll(found[:4], 9, 3)
    template = match(images, found, ellipse_pool(PRIOR, FRAME, 0), 0)
    assert template.fits[:4].max() < template.fits[4:].min()
    alone, both = starting_labels(found, template, ellipse_pool(PRIOR, FRAME, 0))
    assert torch.equal(alone.labels, template.alone) and torch.equal(both.quality, template.fits)
    examples = MaskPool(truth, Variation())
    (only,) = starting_labels(found, match(images, found, examples, 0), examples)
    assert mean_dice(only.labels, (found > 0.5).float()) > 0.99


class Drawn(torch.nn.Module):
    """Stands for a segmenter that has learned to draw these masks (n, 1, j, i), however it came to that."""

    def __init__(self, masks):
        super().__init__()
        self.logits = 20 * torch.cat([1 - masks, masks], 1).unsqueeze(2) - 10

    def forward(self, images):
        return self.logits


def rounds_that_draw(monkeypatch, vae, starts, draws, count):
    """bootstrap_rounds on ring_pictures, with labels `starts` and segmenters that draw `draws`, in turn: how far each
    set of masks is off the rings, in pixels."""
    images, truth = ring_pictures(12)
    at = {pixels: torch.roll(truth, pixels, 3) for pixels in {*starts, *draws}}
    waiting = list(draws)
    monkeypatch.setattr(learning, "train_on", lambda *_, **__: (Drawn(at[waiting.pop(0)]), None))
    pool = ellipse_pool(PRIOR, FRAME, 0)
    first = [pseudo_labels(at[pixels], vae, pool) for pixels in starts]
    done = bootstrap_rounds(
        None, images, torch.arange(12) > 8, first, vae, pool, RoundSettings(rounds=count), "bright rim", seed=0
    )
    return done, first


def test_labels_that_are_learned_away_from_make_way_for_the_next(monkeypatch, disc_vae):
    done, first = rounds_that_draw(monkeypatch, disc_vae, [0, 3], [4, 2], 1)
    assert done.labels == [first[1]] and len(done.segmenters) == 1
    done, first = rounds_that_draw(monkeypatch, disc_vae, [3, 0], [1, 0], 1)
    assert done.labels == [first[0]] and done.history[0]["learned"] == 9  # all of them, as the other one waits


def test_a_round_that_goes_astray_is_dropped_and_the_last(monkeypatch, disc_vae):
    done, _ = rounds_that_draw(monkeypatch, disc_vae, [2], [1, 0, 4, 0], 4)
    assert [entry["round"] for entry in done.history] == [1, 2]
    assert done.history[1]["border"] > done.history[0]["border"]
    assert torch.equal(done.segmenters[-1].logits.argmax(1), ring_pictures(12)[1].long())


def test_masks_of_another_site_are_varied_and_counted_in_parts(tmp_path):
    for number in range(12):
        mask = np.zeros((40, 60), np.uint8)
        mask[8 + number // 3 : 30, 6:24] = mask[8:30, 36:54] = 255
        cv2.imwrite(str(tmp_path / f"{number}.png"), mask)
    files = sorted(tmp_path.glob("*.png"))
    pool = file_pool(files, (32, 48))
    assert pool.parts == 2 and pool.masks.shape == (12, 1, 32, 48)
    still = MaskPool(pool.masks, Variation(0, 0, 0))
    areas = [p(200, torch.Generator().manual_seed(0)).mean((1, 2, 3)).std() for p in (pool, still)]
    assert areas[0] > 2 * areas[1]
    with pytest.raises(BadInput, match="at least 10"):
        file_pool(files[:3], (32, 48))
    cv2.imwrite(str(tmp_path / "3.png"), np.zeros((40, 60), np.uint8))
    with pytest.raises(BadInput, match=re.escape("3.png' fills 0.0 %")):
        file_pool(files, (32, 48))


class StoppedHalfway(Exception):
    pass


def test_a_translation_that_was_killed_goes_on_to_the_same_weights(tmp_path, disc_vae):
    images = torch.from_numpy(disc_pictures(10)[0])[:, None]
    pool, settings = ellipse_pool(PRIOR, FRAME, 0), GanSettings(steps=20)

    def stop(fraction, message):
        if fraction >= 0.6:
            raise StoppedHalfway

    whole = train_cyclegan(images, images[:4], pool, disc_vae, settings, seed=1)
    file = tmp_path / "gan.checkpoint"
    with pytest.raises(StoppedHalfway):
        train_cyclegan(images, images[:4], pool, disc_vae, settings, seed=1, checkpoint=file, progress=Progress(stop))
    assert file.exists()
    rest = train_cyclegan(images, images[:4], pool, disc_vae, settings, seed=1, checkpoint=file)
    assert rest.history == whole.history
    for name, value in whole.gan.state_dict().items():
        assert torch.equal(value, rest.gan.state_dict()[name]), name


@pytest.mark.parametrize("vae, calibration", [(False, False), (True, False), (True, True)])
def test_every_step_of_the_ladder_trains_the_parts_it_has(disc_vae, vae, calibration):
    images = torch.from_numpy(disc_pictures(6)[0])[:, None]
    settings = GanSettings(vae=vae, calibration=calibration, steps=2)
    translated = train_cyclegan(images, images, ellipse_pool(PRIOR, FRAME, 0), disc_vae, settings, seed=0)
    names = {name.split(".")[0] for name, _ in translated.gan.named_parameters()}
    assert ("judge_latent" in names, "calibrate" in names) == (vae, calibration)
    found = translated.gan.find(images)
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1


def test_images_without_masks_become_a_version_with_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrapping, "VAE_STEPS", 100)
    monkeypatch.setattr(RoundSettings.__init__, "__defaults__", ((0.7, 1.0), False, 3, 80))
    images, masks = disc_files(tmp_path)
    store = ModelStore(tmp_path / "store")
    prior = tmp_path / "prior.json"
    prior.write_text(PRIOR.model_dump_json())
    arguments = ["--images", images, "--shape", f"ellipse:{prior}", "--name", "discs", "--label", "disc", "--size", 32]
    arguments += ["--steps", 150, "--rounds", 1, "--store", store.home, "--report", tmp_path / "report.json"]
    result = CliRunner().invoke(app, ["bootstrap", *map(str, arguments)], catch_exceptions=False)
    assert "is active" in result.output and "its scores are against these" in result.output
    version = store.load("discs")
    assert json.loads((tmp_path / "report.json").read_text())["version"] == version.version
    manifest = version.manifest
    assert manifest.settings["method"] == "bootstrap" and "pseudo" in manifest.settings["scores against"]
    assert manifest.settings["prior"]["size"] == [0.35, 0.6] and manifest.data["images"] == 40
    assert manifest.settings["border"] == "bright area"
    assert version.synthesizer() is not None and not manifest.scores["test"]
    assert manifest.reflection["known"] is not None and manifest.reflection["estimate"] is None, "of what nobody drew"
    place = store.home / "reports" / f"discs-{version.version}"
    page = (place / "report.html").read_text()
    assert "Nobody has drawn a mask" in page and page.count("data:image/png") > 20
    assert not any((store.home / "training").iterdir())
    engine, scores = Engine(version, "cpu"), []
    for file in images.glob("*.png"):
        if split_of(file.stem) == "test":
            assert not (place / "labels" / f"{file.stem}.nii.gz").exists()
            found = engine.segment(read_image(file), reflect=False).labels.array[0] > 0
            truth = cv2.imread(str(masks / file.name), cv2.IMREAD_GRAYSCALE) > 0
            scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert np.mean(scores) > 0.6  # all of a picture taken for a disc is .3


def test_the_command_says_what_is_wrong_before_it_starts(tmp_path):
    images, masks = disc_files(tmp_path, 30)
    prior = tmp_path / "prior.json"
    prior.write_text(PRIOR.model_copy(update={"size": (1.9, 2.0)}).model_dump_json())

    def said(*arguments):
        result = CliRunner().invoke(
            app, ["bootstrap", "--name", "x", "--store", str(tmp_path / "s"), *map(str, arguments)]
        )
        assert isinstance(result.exception, BadInput), result.output
        return str(result.exception)

    assert "either --masks" in said("--images", images)
    assert "either --masks" in said("--images", images, "--masks", masks, "--shape", "ellipse:optic-disc")
    assert "There is no folder" in said("--images", tmp_path / "none", "--shape", "ellipse:optic-disc")
    assert "is not known" in said("--images", images, "--shape", "square")
    assert "could not be read" in said("--images", images, "--shape", "ellipse:none.json")
    assert "does not fit the image" in said("--images", images, "--shape", f"ellipse:{prior}")
    for file in sorted(images.glob("*.png"))[8:]:
        file.unlink()
    assert "are needed" in said("--images", images, "--shape", "ellipse:optic-disc")


def test_images_that_cannot_be_learned_from_together_are_refused(tmp_path):
    images, _ = disc_files(tmp_path, 30)
    files = sorted(images.glob("*.png"))
    spec = spec_of(files, "x", "disc", 32)
    assert spec.patch == (1, 32, 32) and len(read_pictures(files, spec)) == sum(
        split_of(f.stem) != "test" for f in files
    )
    cv2.imwrite(str(files[3]), np.tile(np.arange(60, dtype=np.uint8), (32, 1)))
    with pytest.raises(BadInput, match=r"p03.png' is 60 x 32 mm.*one size"):
        spec_of(files, "x", "disc", 32)
    cv2.imwrite(str(files[3]), np.tile(np.arange(32, dtype=np.uint8)[:, None, None], (1, 32, 3)))
    with pytest.raises(BadInput, match=r"p03.png' has 3 channels"):
        spec_of(files, "x", "disc", 32)


def test_the_user_can_stop_at_any_time(tmp_path):
    images, _ = disc_files(tmp_path)
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 60

    with pytest.raises(Cancelled):
        bootstrapping.bootstrap(
            sorted(images.glob("*.png")),
            PRIOR,
            ModelStore(tmp_path / "store"),
            name="discs",
            label="disc",
            size=32,
            progress=Progress(cancelled=cancelled),
        )
    assert "discs" not in ModelStore(tmp_path / "store").names()
