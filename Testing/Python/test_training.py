"""Training: what it accepts, that it learns, and that the same seed gives the same weights even after a kill."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.inference.segmenter import TorchSegmenter
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.training.augment import Augmentation, random_looks, random_patch
from RefSegLib.training.batches import patch_batches
from RefSegLib.training.cases import Sample, by_role, cached_samples, fingerprint, load_samples, pair_cases
from RefSegLib.training.fit import fast_precision, fit
from RefSegLib.training.losses import dice_ce, one_hot
from RefSegLib.training.segmenter import predict, train_segmenter
from RefSegLib.training.train import measure, train
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume
from scipy import ndimage


def spec(dimensions=3, **network) -> SegmenterSpec:
    return SegmenterSpec(
        name="blob",
        dimensions=dimensions,
        channels=("T1",),
        labels=[{"value": v, "name": name, "color": (1, 0, 0)} for v, name in ((1, "shell"), (2, "core"))],
        spacing=(1, 1, 1),
        patch=(16, 16, 16) if dimensions == 3 else (1, 16, 16),
        network={"name": "dynunet", "arguments": {"filters": [4, 8, 8]} | network},
    )


def blob(seed: int, shape=(14, 17, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A bright shell with a dark core in gray noise, and its labels."""
    rng = np.random.default_rng(seed)
    center = np.asarray(shape) / 2 + rng.uniform(-1.5, 1.5, 3)
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - center, axis=-1)
    labels = ((distance < 5).astype(np.uint8) + (distance < 2.5)).astype(np.uint8)
    image = np.choose(labels, (0.4, 0.9, 0.1)) + rng.normal(0, 0.03, shape)
    return ndimage.gaussian_filter(image, 0.4).astype(np.float32) * 500, labels


def sample(seed: int) -> Sample:
    image, labels = blob(seed)
    return Sample(f"s{seed}", spec().normalization(image[None]), labels.astype(np.uint16), (1.0, 1.0, 1.0))


SAMPLES = [sample(seed) for seed in range(8)]


@pytest.fixture
def folders(tmp_path):
    """Twelve patients as files, all roles among them."""
    for seed in range(12):
        image, labels = blob(seed)
        write_image(Volume(image, Grid(image.shape)), tmp_path / "images" / f"case{seed}.nii.gz")
        write_labels(LabelMap(labels, Grid(labels.shape)), tmp_path / "labels" / f"case{seed}.nii.gz")
    return tmp_path / "images", tmp_path / "labels"


# -- losses and augmentation


def test_the_loss_is_monais_where_monai_has_one():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 4, 5, 6))
    theirs = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, include_background=False)(logits, labels[:, None])
    torch.testing.assert_close(dice_ce(logits, one_hot(labels, 3)), theirs, rtol=1e-4, atol=1e-4)


def test_what_weighs_nothing_is_not_learned():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    weight = torch.ones(1, 1, 4, 4, 4)
    weight[..., 2:] = 0
    dice_ce(logits, one_hot(torch.randint(0, 3, (1, 4, 4, 4)), 3), weight).backward()
    assert logits.grad[..., :2].abs().min() > 0
    assert logits.grad[..., 2:].abs().max() == 0


def test_without_augmentation_the_patch_is_the_image():
    still = Augmentation(rotation=0, scale=0, shift=0, looks=0)
    image, labels = SAMPLES[0].image[:, :, :16], SAMPLES[0].labels[:, :16]
    for patch in ((14, 16, 16), (8, 8, 16)):
        found, its_labels = random_patch(image, labels, 3, patch, (1, 1, 1), still, torch.Generator().manual_seed(1))
        windows = np.lib.stride_tricks.sliding_window_view(image[0], patch).reshape(-1, *patch)
        differences = np.abs(windows - found[0].numpy()).reshape(len(windows), -1).max(1)
        if patch == (14, 16, 16):
            assert differences.min() < 1e-4
            assert np.array_equal(its_labels.numpy(), labels)
        assert found.shape == (1, *patch)


def test_image_and_labels_move_together_and_never_flip():
    values = np.zeros((24, 24, 24), np.uint16)
    values[8:16, 8:16, 12:20] = 1
    values[8:16, 8:16, 4:12] = 2
    image = values[None].astype(np.float32) / 2
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        found, labels = random_patch(image, values, 3, (24, 24, 24), (1, 1, 1), Augmentation(), generator)
        sure = (found[0] - found[0].round(decimals=0)).abs() < 0.05
        assert ((found[0] > 0.75) == (labels == 2))[sure].float().mean() > 0.97
        left, right = (np.argwhere((labels == v).numpy())[:, 2].mean() for v in (2, 1))
        assert left < right


def test_thick_slices_stay_rigid():
    """A tube along k, 8 mm thick slices of 1 mm pixels: turned in millimeters, it keeps its width."""
    j, i = np.mgrid[-20:20, -20:20]
    tube = np.repeat(((j**2 + i**2) < 36)[None], 8, 0).astype(np.uint16)
    augmentation = Augmentation(rotation=15, scale=0, shift=0, looks=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        _, labels = random_patch(
            tube[None].astype(np.float32), tube, 2, (8, 40, 40), (8.0, 1.0, 1.0), augmentation, generator
        )
        middle = labels[3:5].float().mean(0).sum()
        assert float(middle) == pytest.approx(tube[0].sum(), rel=0.15)


def test_looks_change_intensities_but_not_the_range_or_the_size():
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 1, 12, 12, 12), (2, 3, 1, 12, 12)):
        images = torch.rand(shape)
        changed = random_looks(images, replace(Augmentation(), looks=1.0), generator)
        assert changed.shape == images.shape
        assert not torch.allclose(changed, images)
        assert changed.isfinite().all()
        assert -0.5 <= float(changed.min()) <= float(changed.max()) <= 1.5
    assert torch.equal(random_looks(images, Augmentation().mild(), generator), images)


def test_batches_are_the_same_for_the_same_seed_and_epoch_only():
    def first(seed, epoch):
        return next(iter(patch_batches(SAMPLES, spec(), Augmentation(), seed)(epoch)))[0]

    assert torch.equal(first(3, 5), first(3, 5))
    assert not torch.equal(first(3, 5), first(3, 6))
    assert not torch.equal(first(3, 5), first(4, 5))


# -- the loop


class Killed(Exception):
    pass


def trained(tmp_path, *, epochs=2, seed=0, kill_in=None, name="run", **network):
    torch.manual_seed(seed)
    module = build_segmenter(spec(**network))

    def report(fraction, message):
        if kill_in is not None and fraction > kill_in:
            raise Killed

    result = train_segmenter(
        module,
        spec(**network),
        SAMPLES[:6],
        SAMPLES[6:],
        epochs=epochs,
        seed=seed,
        checkpoint=tmp_path / name,
        progress=Progress(report),
    )
    return module, result


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.fixture
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# With two threads each takes a patch of its own; networks with batch statistics keep the batch together.
@pytest.mark.parametrize(("norm", "threads"), [("instance", 1), ("instance", 2), ("batch", 1)])
def test_the_same_seed_gives_the_same_weights_even_after_a_kill(tmp_path, norm, threads, restored_threads):
    torch.set_num_threads(threads)
    _, whole = trained(tmp_path, norm=norm, name="whole")
    with pytest.raises(Killed):
        trained(tmp_path, norm=norm, kill_in=0.7, name="killed")
    assert (tmp_path / "killed").exists()
    _, resumed = trained(tmp_path, norm=norm, name="killed")
    assert same(whole.weights, resumed.weights)
    assert whole.history == resumed.history
    _, other = trained(tmp_path, norm=norm, seed=1, name="other")
    assert not same(whole.weights, other.weights)


def test_a_segmenter_learns(tmp_path):
    module, result = trained(tmp_path, epochs=8, filters=[8, 16, 16])
    losses = [entry["loss"] for entry in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert result.score == max(entry["score"] for entry in result.history) > 0.65
    assert (predict(module, SAMPLES[6].image, spec()) == SAMPLES[6].labels).mean() > 0.9


def test_slices_are_learned_too(tmp_path):
    torch.manual_seed(0)
    slices = spec(2, filters=[8, 16, 16])
    result = train_segmenter(build_segmenter(slices), slices, SAMPLES[:6], SAMPLES[6:], epochs=80, seed=0)
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    assert result.score > 0.5


def test_training_stops_early_when_nothing_gets_better():
    module = torch.nn.Linear(1, 1)
    seen = []

    def batches(epoch):
        seen.append(epoch)
        yield (torch.ones(2, 1),)

    result = fit(
        module, batches, lambda m, b: m(b[0]).square().mean(), lambda m: 0.5, epochs=50, steps=1, pieces=2, patience=3
    )
    assert len(seen) == 4
    assert result.score == 0.5


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_gradients_of_thin_volumes_are_right_in_fast_precision(slices):
    torch.manual_seed(0)
    layer, images = torch.nn.Conv3d(8, 8, 3, padding=1), torch.rand(2, 8, slices, 6, 6)
    with fast_precision(torch.device("cpu")):
        found = layer(images)
    fast = torch.autograd.grad(found.float().square().mean(), layer.weight)[0]
    full = torch.autograd.grad(layer(images).square().mean(), layer.weight)[0]
    assert float((fast - full).norm() / full.norm()) < 0.05


def test_a_loss_that_is_no_number_is_said():
    module = torch.nn.Linear(1, 1)
    with pytest.raises(RefSegError, match="broke down"):
        fit(
            module,
            lambda epoch: [(torch.ones(1, 1),)],
            lambda m, b: m(b[0]).mean() * math.nan,
            lambda m: 0.0,
            epochs=2,
            steps=1,
            pieces=1,
        )


# -- files


def test_files_come_as_pairs_by_name(folders):
    cases = pair_cases(*folders)
    assert [case.name for case in cases] == sorted(f"case{n}" for n in range(12))
    assert sum(map(len, by_role(cases).values())) == 12
    again = pair_cases(*folders)
    assert fingerprint(cases) == fingerprint(reversed(again))
    assert fingerprint(cases) != fingerprint(cases[1:])


def test_samples_from_the_cache_are_those_from_the_files(folders, tmp_path):
    case = pair_cases(*folders)[0]
    (direct,) = load_samples(case, spec())
    for _ in range(2):
        (cached,) = cached_samples(case, spec(), tmp_path / "cache")
        assert np.array_equal(direct.image, cached.image)
        assert np.array_equal(direct.labels, cached.labels)
        assert (direct.name, direct.spacing) == (cached.name, cached.spacing)


def test_samples_are_turned_and_resampled_to_the_working_grid(a_grid, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.random(a_grid.shape).astype(np.float32)
    labels = (image > 0.5).astype(np.uint8)
    (tmp_path / "a").mkdir()
    write_image(Volume(image, a_grid), tmp_path / "a" / "x.nrrd")
    write_labels(LabelMap(labels, a_grid), tmp_path / "a" / "x-label.nrrd")
    case = replace_files(tmp_path / "a")
    (found,) = load_samples(case, spec().model_copy(update={"spacing": (0.0, 0.0, 0.0)}))
    assert found.image.shape[1:] == found.labels.shape == a_grid.aligned_to_lps().shape
    assert found.labels.sum() == labels.sum()
    assert ((found.image[0] > np.median(found.image)) == found.labels).mean() > 0.98


def replace_files(folder):
    from RefSegLib.training.cases import Case

    return Case("x", folder / "x.nrrd", folder / "x-label.nrrd")


def spoil(folders, what):
    images, labels = folders
    image, truth = blob(3)
    if what == "alone":
        (labels / "case3.nii.gz").unlink()
    elif what == "no image":
        (images / "case3.nii.gz").unlink()
    elif what == "empty":
        for file in labels.iterdir():
            file.unlink()
    elif what == "shape":
        write_labels(LabelMap(truth[1:], Grid(truth[1:].shape)), labels / "case3.nii.gz")
    elif what == "shifted":
        write_labels(LabelMap(truth, Grid(truth.shape, origin=(5, 0, 0))), labels / "case3.nii.gz")
    elif what == "value":
        truth[0, 0, 0] = 7
        write_labels(LabelMap(truth, Grid(truth.shape)), labels / "case3.nii.gz")
    elif what == "NaN":
        image[0, 0, 0] = np.nan  # as NRRD: the NIfTI library turns NaN into 0 while reading
        (images / "case3.nii.gz").unlink()
        write_image(Volume(image, Grid(image.shape)), images / "case3.nrrd")
    elif what == "channels":
        write_image(Volume(np.stack([image] * 3), Grid(image.shape)), images / "case3.nii.gz")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("alone", "case3.*no file of the same name among the masks"),
        ("no image", "case3.*no file of the same name among the images"),
        ("empty", "no masks in"),
        ("shape", "case3.*does not lie on the grid"),
        ("shifted", "case3.*does not lie on the grid"),
        ("value", r"case3.*values \[7\]"),
        ("NaN", "case3.*NaN"),
        ("channels", "case3.*3 channels"),
    ],
)
def test_data_that_cannot_be_trained_on_is_named(folders, tmp_path, what, words):
    spoil(folders, what)
    with pytest.raises(BadInput, match=words):
        for case in pair_cases(*folders):
            load_samples(case, spec())


def test_patients_are_needed_for_training_and_validation(folders, tmp_path):
    cases = pair_cases(*folders)
    for role in ("train", "validation"):
        with pytest.raises(BadInput, match=f"falls to {role}"):
            train(spec(), [c for c in cases if c.role != role], ModelStore(tmp_path / "home"), epochs=1, seed=0)


def test_a_version_is_made_from_folders_and_can_be_built_upon(folders, tmp_path):
    store = ModelStore(tmp_path / "home")
    cases = pair_cases(*folders)
    version = train(spec(), cases, store, epochs=2, seed=0)
    manifest = store.load("blob", version.version).manifest
    assert manifest.data["fingerprint"] == fingerprint(cases)
    assert manifest.data["cases"] == {role: len(some) for role, some in by_role(cases).items()}
    assert manifest.scores["validation"].keys() == {"shell", "core", "mean"}
    assert manifest.settings["seed"] == 0
    assert not list((tmp_path / "home" / "training").iterdir())

    module = build_segmenter(spec())
    module.load_state_dict({k: torch.from_numpy(v) for k, v in version.segmenter().items()})
    assert measure(TorchSegmenter(spec(), module), by_role(cases)["validation"]) == manifest.scores["validation"]

    child = train(spec(), cases, store, init=version, epochs=1, seed=0)
    assert child.manifest.parent == f"blob@{version.version}"


def test_a_cancelled_training_leaves_no_version_and_goes_on_later(folders, tmp_path):
    store = ModelStore(tmp_path / "home")
    seen = []
    listener = Progress(lambda fraction, _: seen.append(fraction), lambda: bool(seen) and seen[-1] > 0.5)
    with pytest.raises(Cancelled):
        train(spec(), pair_cases(*folders), store, epochs=3, seed=0, progress=listener)
    assert store.names() == ModelStore(tmp_path / "empty").names()
    assert list((tmp_path / "home" / "training").glob("*/segmenter.checkpoint"))


def test_a_model_with_another_network_is_no_start(folders, tmp_path):
    store = ModelStore(tmp_path / "home")
    cases = pair_cases(*folders)
    version = store.add(spec(), {"something": np.zeros(3, np.float32)})
    with pytest.raises(BadInput, match="not one of its layers"):
        train(spec(), cases, store, init=version, epochs=1, seed=0)
