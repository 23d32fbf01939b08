"""Masks that may be wrong: pixels, whole masks and raters are weighed rightly, and a training ends in a model."""

import shutil
import signal

import numpy as np
import pytest
import torch
import typer
from InteractiveLearningLib import cli
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Network, SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.noisy import images, pixels
from RefSegLib.noisy.co_teaching import CoTeaching
from RefSegLib.noisy.corrections import as_given, corrected
from RefSegLib.noisy.mask_noise import corrupt
from RefSegLib.noisy.raters import RatedSample, consensus, rated_cases, votes
from RefSegLib.noisy.segmenter import believed_batches, train_noisy_segmenter
from RefSegLib.noisy.t_loss import TLoss
from RefSegLib.noisy.train_noisy import train_noisy
from RefSegLib.progress import Progress
from RefSegLib.quality.metrics import dice
from RefSegLib.terminal import shown_progress
from RefSegLib.training.augment import Augmentation
from RefSegLib.training.batches import patch_batches
from RefSegLib.training.cases import Sample
from RefSegLib.training.losses import one_hot
from RefSegLib.training.segmenter import train_segmenter
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume
from torch import nn

SPEC = SegmenterSpec(
    name="disc",
    dimensions=2,
    channels=("gray",),
    labels=[{"value": 1, "name": "disc", "color": (1, 0, 0)}],
    spacing=(0, 0, 0),
    patch=(1, 32, 32),
    aligned=False,
    network={"name": "unet", "arguments": {"filters": [6, 8, 12], "dropout": 0.1}},
)


def picture(seed: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc in noise (1, j, i), and its mask."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.mgrid[:size, :size], -1) - rng.uniform(12, 20, 2)
    mask = np.linalg.norm(at, axis=-1) < rng.uniform(6, 9)
    return (mask * 100 + rng.normal(0, 10, mask.shape) + 40)[None].astype(np.float32), mask[None].astype(np.uint16)


def rated(seed: int, *kinds: str) -> RatedSample:
    """A sample with one rater for each kind of noise, "" for a right mask."""
    image, mask = picture(seed)
    rng = np.random.default_rng(seed)
    given = [corrupt(mask, kind, 0.9, rng).labels if kind else mask for kind in kinds]
    raters = tuple(f"r{n}" for n in range(len(kinds)))
    return RatedSample(f"s{seed}", SPEC.normalization(image[None]), np.stack(given), raters, (1.0, 1.0, 1.0))


class Threshold(nn.Module):
    """A network that has learned all there is: bright is the structure."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-(x - 0.5) * self.scale, (x - 0.5) * self.scale], 1)


# -- pixels


def test_a_sure_network_overrules_a_label_and_an_unsure_one_does_not():
    given = np.ones((1, 1, 1, 3), np.uint16)
    seen = np.array([[0.98, 0.7, 0.02], [0.02, 0.3, 0.98]], np.float32).reshape(2, 1, 1, 3)
    often = np.array([[[0.7, 0.3], [0.3, 0.7]]], np.float32)
    target = pixels.target_of(seen, given, often)
    np.testing.assert_allclose(target.sum(0), 1, rtol=1e-5)
    assert target[1, 0, 0].round().tolist() == [0, 0, 1] or target[1, 0, 0, 0] < 0.5 < target[1, 0, 0, 1] + 0.01
    assert pixels.doubted(target, given)[0, 0, 0].tolist()[0]
    rarely = pixels.first_table(2)[None]
    assert pixels.target_of(seen, given, rarely)[1, 0, 0, 1] > 0.9


def test_two_raters_weigh_more_than_one_and_the_better_one_more_than_the_worse():
    seen = np.full((2, 1, 1, 1), 0.5, np.float32)
    good, bad = np.array([[0.95, 0.05], [0.05, 0.95]], np.float32), np.array([[0.6, 0.4], [0.4, 0.6]], np.float32)
    against = np.array([1, 0], np.uint16).reshape(2, 1, 1, 1)
    assert pixels.target_of(seen, against, np.stack([good, bad]))[1] > 0.8
    one, two = (pixels.target_of(seen, np.ones((n, 1, 1, 1), np.uint16), np.stack([bad] * n))[1] for n in (1, 2))
    assert two > one > 0.5


def test_what_was_changed_is_found_and_what_was_not_is_left_alone():
    samples = [rated(n, kind) for n, kind in enumerate(("dilation", "", "erosion", "", "missing", "", "shift", "") * 3)]
    believed = corrected(Threshold(), samples, SPEC, "both")
    for number, (sample, one) in enumerate(zip(samples, believed, strict=True)):
        truth = picture(number)[1]
        changed = sample.given[0] != truth
        found = pixels.doubted(one.target, sample.given)[0]
        if changed.any():
            assert (found & changed).sum() / changed.sum() > 0.8, sample.name
            assert (found & changed).sum() / found.sum() > 0.8, sample.name
        else:
            assert found.sum() <= 3, sample.name


# -- whole masks


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("bias", [0.0, 0.2])
def test_bad_masks_are_suspected_whatever_their_share_and_wherever_the_network_errs(share, bias):
    rng = np.random.default_rng(0)
    bad = rng.random(100) < share
    points = np.where(bad[:, None], rng.uniform(0, 0.5, (100, 2)), rng.normal((0.05, 0.05 + bias), 0.01, (100, 2)))
    off, limit = images.distances(points)
    assert ((off > limit) == bad).mean() > 0.9
    trust = images.trust_of(off, limit)
    assert np.median(trust[~bad]) > 0.9 and (not bad.any() or np.median(trust[bad]) < 0.2)


def test_of_few_masks_none_is_suspected():
    off, limit = images.distances(np.array([[0.01, 0], [0.5, 0.2]]))
    assert (off <= limit).all() and (images.trust_of(off, limit) == 1).all()


def test_a_network_that_knows_nothing_yet_doubts_nobody():
    points = np.random.default_rng(0).normal((0.3, 0.3), 0.05, (50, 2))
    off, limit = images.distances(points)
    assert (off <= limit).all()
    samples = [rated(n, "") for n in range(10)]
    for one, sample in zip(corrected(network(), samples, SPEC, "both"), samples, strict=True):
        assert np.array_equal(one.target, votes(sample.given, 2)) and not one.suspected.any()


def test_what_a_mask_has_too_much_and_what_it_misses_add_up_to_its_dice():
    seen = np.zeros((3, 1, 4, 4), np.float32)
    seen[1, 0, :2], seen[2, 0, 2], seen[0, 0, 3] = 1, 1, 1
    given = np.zeros((2, 1, 4, 4), np.uint16)
    given[0, 0, :1], given[0, 0, 2:] = 1, 2
    found = images.disagreement(seen, given)
    dices = [dice(given[0] == v, seen[v] > 0.5) for v in (1, 2)]
    assert found[0].sum() == pytest.approx(1 - np.mean(dices))
    assert found[1].tolist() == [0, 1]  # an empty mask misses everything


def test_a_whole_mask_that_is_bad_counts_less():
    samples = [rated(n, "") for n in range(12)] + [rated(n, "shift") for n in range(12, 16)]
    believed = corrected(Threshold(), samples, SPEC, "image")
    weights = [float(one.weight.mean()) for one in believed]
    assert min(weights[:12]) > 0.5 > max(weights[12:])
    assert all(np.array_equal(one.target[1] > 0.5, s.given[0] > 0) for one, s in zip(believed, samples, strict=True))


# -- raters


def test_votes_and_consensus():
    given = np.array([[[[0, 1, 2]]], [[[0, 1, 1]]], [[[1, 1, 0]]]], np.uint16)
    np.testing.assert_allclose(votes(given, 3)[:, 0, 0], [[2 / 3, 0, 1 / 3], [1 / 3, 1, 1 / 3], [0, 0, 1 / 3]])
    assert consensus(given)[0, 0].tolist() == [0, 1, 0]
    assert consensus(given[:1])[0, 0].tolist() == [0, 1, 2]


def write(folder, name, mask):
    write_labels(LabelMap(mask, Grid(mask.shape)), folder / f"{name}.nii.gz")


@pytest.fixture
def rated_folders(tmp_path):
    """Sixteen images; anna outlined all of them rightly, ben half of them, half of those wrongly."""
    for seed in range(16):
        image, mask = picture(seed)
        write_image(Volume(image, Grid(image.shape)), tmp_path / "images" / f"p{seed}.nii.gz")
        write(tmp_path / "masks" / "anna", f"p{seed}", mask)
        if seed % 2:
            rng = np.random.default_rng(seed)
            write(
                tmp_path / "masks" / "ben",
                f"p{seed}",
                corrupt(mask, "shift", 0.9, rng).labels if seed % 4 == 1 else mask,
            )
    return tmp_path / "images", tmp_path / "masks"


def test_raters_are_folders_inside_one_or_several_given(rated_folders):
    files, masks = rated_folders
    inside = rated_cases(files, [masks])
    given = rated_cases(files, [masks / "anna", masks / "ben"])
    assert inside == given
    assert [sorted(case.masks) for case in inside[:2]] == [["anna"], ["anna", "ben"]]
    assert list(rated_cases(files, [masks / "anna"])[0].masks) == ["the masks"]


def test_masks_without_images_and_images_without_masks_are_named(rated_folders):
    files, masks = rated_folders
    with pytest.raises(BadInput, match=r"Nobody has a mask of .*p0"):
        rated_cases(files, [masks / "ben"])
    shutil.copy(masks / "anna" / "p1.nii.gz", masks / "ben" / "stranger.nii.gz")
    with pytest.raises(BadInput, match="stranger"):
        rated_cases(files, [masks])
    with pytest.raises(BadInput, match="There is no folder"):
        rated_cases(files, [masks / "carl"])
    with pytest.raises(BadInput, match="called 'anna'"):
        rated_cases(files, [masks / "anna", masks / "anna"])


# -- training


SAMPLES = [rated(n, "erosion" if n % 2 else "") for n in range(8)]
VALIDATION = [Sample(f"v{n}", rated(n, "").image, picture(n)[1], (1.0, 1.0, 1.0)) for n in (20, 21)]


def test_what_is_believed_without_noise_is_what_plain_training_sees():
    samples = [Sample(s.name, s.image, s.given[0], s.spacing) for s in SAMPLES]
    plain = next(patch_batches(samples, SPEC, Augmentation(), 5)(3))
    images_, target, weight = next(
        believed_batches(SAMPLES, [as_given(s, 2) for s in SAMPLES], SPEC, Augmentation(), 5)(3)
    )
    assert images_.shape == plain[0].shape and weight.min() > 0.99
    torch.testing.assert_close(target.sum(1), torch.ones_like(target[:, 0]), atol=2e-3, rtol=0)
    assert (target.argmax(1) == plain[1]).float().mean() > 0.99
    torch.testing.assert_close(images_, plain[0])


def network(seed: int = 0, dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(seed)
    arguments = SPEC.network.arguments | {"dropout": dropout}
    return build_segmenter(SPEC.model_copy(update={"network": Network(name="unet", arguments=arguments)}))


@pytest.fixture
def one_thread():
    """Dropout is the same twice only where one thread draws."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, one_thread, dropout):
    torch.manual_seed(5)  # dropout draws from it
    whole = network(0, dropout)
    fitted = train_noisy_segmenter(whole, SPEC, SAMPLES, VALIDATION, epochs=4, seed=1)
    done = []

    def stop(fraction, _message):
        done.append(fraction)

    torch.manual_seed(5)
    killed = network(0, dropout)
    with pytest.raises(Cancelled):
        progress = Progress(stop, lambda: bool(done) and done[-1] > 0.8)
        train_noisy_segmenter(
            killed, SPEC, SAMPLES, VALIDATION, epochs=4, seed=1, checkpoint=tmp_path / "c", progress=progress
        )
    assert [path.name for path in tmp_path.iterdir()] == ["c"]  # what is believed is not left behind
    torch.manual_seed(6)
    resumed = network(7, dropout)
    again = train_noisy_segmenter(resumed, SPEC, SAMPLES, VALIDATION, epochs=4, seed=1, checkpoint=tmp_path / "c")
    assert [h["epoch"] for h in again.history] == [h["epoch"] for h in fitted.history]
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


@pytest.mark.parametrize("peer", ["t-loss", "co-teaching"])
def test_peers_learn(peer):
    module = TLoss(network()) if peer == "t-loss" else CoTeaching(network(), network(1), 40)
    samples = [Sample(s.name, s.image, s.given[0], s.spacing) for s in SAMPLES]
    before = [p.detach().clone() for p in module.parameters()]
    fitted = train_segmenter(module, SPEC, samples, VALIDATION, epochs=6, seed=0, loss=type(module).loss)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    assert all((a != b).any() for a, b in zip(before, module.parameters(), strict=True) if a.numel() > 1)


def test_t_loss_counts_an_image_far_off_less_than_two_images_a_little_off():
    module = TLoss(nn.Identity())
    labels = torch.zeros(2, 1, 4, 4, dtype=torch.long)

    def loss(*errors):
        logits = torch.stack([torch.full((2, 1, 4, 4), 0.0) for _ in errors])
        for n, error in enumerate(errors):
            logits[n, 1] = torch.logit(torch.tensor(error))
        return TLoss.loss(module, logits, labels).item()

    assert loss(0.01, 0.99) < loss(0.5, 0.5)


def test_co_teaching_leaves_out_what_the_other_finds_hardest():
    from RefSegLib.noisy.co_teaching import _easiest

    labels = torch.zeros(1, 1, 1, 10, dtype=torch.long)
    logits = one_hot(labels, 2) * 4
    logits[..., 7] = torch.tensor([-4.0, 4.0]).reshape(1, 2, 1, 1)
    assert _easiest(logits, labels, 0.9)[0, 0, 0, 0].tolist() == [1.0] * 7 + [0.0] + [1.0] * 2


def test_train_noisy_gives_a_version_with_reflection_and_a_report(rated_folders, tmp_path):
    files, masks = rated_folders
    store = ModelStore(tmp_path / "store")
    version = train_noisy(
        SPEC.model_copy(update={"patch": (1, 32, 32)}), rated_cases(files, [masks]), store, epochs=4, seed=0
    )
    about = version.manifest
    assert about.data["raters"] == 2 and about.settings["method"] == "noisy labels"
    assert about.settings["level"] == "image"  # what came out best, docs/noisy-tables.md
    assert version.synthesizer() is not None and about.reflection
    assert 0 < about.scores["test"]["mean"]["dice"] <= 1
    page = (tmp_path / "store" / "reports" / "disc-1" / "report.html").read_text()
    assert "anna" in page and "ben" in page and "data:image/png" in page
    assert not list((tmp_path / "store" / "training").iterdir())


def test_masks_of_one_image_on_different_grids_are_refused(rated_folders, tmp_path):
    files, masks = rated_folders
    cases = rated_cases(files, [masks])
    for case in cases:
        if "ben" in case.masks:
            write(masks / "ben", case.name, np.zeros((1, 30, 32), np.uint16))
    with pytest.raises(BadInput, match="grid"):
        train_noisy(SPEC, cases, ModelStore(tmp_path / "store"), epochs=1, seed=0)


def refseg(monkeypatch, *words) -> int:
    monkeypatch.setattr("sys.argv", ["refseg", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_trains_on_several_raters_and_says_where_its_report_is(
    rated_folders, tmp_path, monkeypatch, capsys
):
    files, masks = rated_folders
    (tmp_path / "spec.json").write_text(SPEC.model_dump_json())
    words = ["train", "--spec", tmp_path / "spec.json", "--images", files, "--name", "disc", "--epochs", 1]
    words += ["--store", tmp_path / "store"]
    assert refseg(monkeypatch, *words, "--masks", masks / "anna", "--masks", masks / "ben") == 2
    assert "--noisy" in capsys.readouterr().err
    assert refseg(monkeypatch, *words, "--masks", masks, "--noisy", "--reconstruction") == 2
    assert "choose one" in capsys.readouterr().err
    assert refseg(monkeypatch, *words, "--masks", masks / "anna", "--masks", masks / "ben", "--noisy") == 0
    said = capsys.readouterr().out
    assert "masks it learned from may be wrong" in said
    assert str(tmp_path / "store" / "reports" / "disc-1" / "report.html") in said.replace("\n", "")
    assert ModelStore(tmp_path / "store").active("disc") == "1"


@pytest.mark.parametrize(("resumes", "said"), [(True, "goes on where it was"), (False, "Stopped.")])
def test_somebody_who_stops_a_command_is_told_whether_it_goes_on(monkeypatch, capsys, resumes, said):
    """Through typer, which ends without a word by itself."""

    def stopped() -> None:
        with shown_progress("Training", resumes=resumes):
            signal.raise_signal(signal.SIGINT)

    own = typer.Typer(pretty_exceptions_enable=False)
    own.command()(stopped)
    monkeypatch.setattr(cli, "app", own)
    assert refseg(monkeypatch) == 130
    heard = capsys.readouterr().err
    assert said in heard and ("goes on" in heard) == resumes
