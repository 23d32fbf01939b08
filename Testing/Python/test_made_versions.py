"""However a version was made, reflection, annotation and background learning work on it."""

import numpy as np
import pytest
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.stream import annotated
from RefSegLib.bootstrapping import bootstrap as bootstrapping
from RefSegLib.bootstrapping.cyclegan import GanSettings
from RefSegLib.bootstrapping.rounds import RoundSettings
from RefSegLib.engine import Engine
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.noisy.raters import rated_cases
from RefSegLib.noisy.train_noisy import train_noisy
from RefSegLib.pretraining.pretrain import pretrain
from RefSegLib.pretraining.pretrained import read_pretrained
from RefSegLib.training.cases import pair_cases
from RefSegLib.training.train import train
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import image_files, read_image, write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume

SPEC = SegmenterSpec(
    name="discs",
    dimensions=2,
    channels=("gray",),
    labels=[{"value": 1, "name": "disc", "color": (1, 0, 0)}],
    spacing=(0, 1, 1),
    patch=(1, 32, 32),
    aligned=False,
    network={"name": "unet", "arguments": {"filters": [6, 8, 12]}},
)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Folders of bright discs on gray and of their masks, all roles among them."""
    folder = tmp_path_factory.mktemp("discs")
    rng, grid = np.random.default_rng(0), Grid((1, 32, 32))
    for number in range(26):
        at = np.stack(np.mgrid[:32, :32], -1) - rng.uniform(13, 19, 2)
        mask = (np.linalg.norm(at, axis=-1) < rng.uniform(7, 10))[None]
        image = 0.35 + 0.4 * mask + 0.05 * rng.normal(size=mask.shape)
        write_image(Volume(image.astype(np.float32), grid), folder / "images" / f"p{number}.nii.gz")
        write_labels(LabelMap(mask.astype(np.uint8), grid), folder / "labels" / f"p{number}.nii.gz")
    return folder / "images", folder / "labels"


def after_pretraining(images, labels, store, monkeypatch):
    file = pretrain(SPEC, image_files(images), store.home, name="start", epochs=4, seed=0)
    cases = pair_cases(images, labels)
    return train(SPEC, cases, store, init=read_pretrained(file), reconstruction=True, epochs=8, seed=0)


def from_noisy_labels(images, labels, store, monkeypatch):
    return train_noisy(SPEC, rated_cases(images, [labels]), store, epochs=8, seed=0)


def from_no_labels(images, labels, store, monkeypatch):
    monkeypatch.setattr(bootstrapping, "VAE_STEPS", 30)
    gan, rounds = GanSettings(steps=20), RoundSettings(rounds=1, steps=20)
    masks = image_files(labels)
    return bootstrapping.bootstrap(
        image_files(images), masks, store, name="discs", label="disc", size=32, gan=gan, rounds=rounds
    )


@pytest.mark.parametrize("make", [after_pretraining, from_noisy_labels, from_no_labels])
def test_reflection_annotation_and_background_learning_work_on_a_version_made(make, discs, tmp_path, monkeypatch):
    store = ModelStore(tmp_path)
    version = make(*discs, store, monkeypatch)
    store.activate("discs", version.version)
    cases = pair_cases(*discs)

    engine = Engine(version, "cpu")
    reflection = engine.segment(read_image(cases[0].image)).regions[0].reflection
    assert reflection.similarity_before is not None
    assert bool(reflection.estimated_dice) == (make is not from_no_labels), "of labels that nobody drew, no estimate"
    assert version.manifest.reflection and len(reflection.candidates) >= 1

    replay = ReplayStore(tmp_path)
    for case in [c for c in cases if c.role == "train"][:3]:
        row, accepted = annotated(version, engine.segmenter, case, 1)
        assert row["after"]["disc"] == pytest.approx(1.0)  # a disc outlined in its only slice is right
        replay.accept(accepted[0])
    settings = LearningSettings(iterations=10, rate=1e-3)
    learner = Learner(tmp_path, "discs", settings)
    try:
        verdicts = learner.work()
    finally:
        learner.close()
    assert verdicts and not [v for v in verdicts if v.outcome == "skipped"]
    learnt = store.load("discs", next(v.candidate for v in verdicts if v.candidate))
    assert learnt.manifest.parent == f"discs@{version.version}" and learnt.manifest.reflection
    before, after = version.segmenter(), learnt.segmenter()
    assert before.keys() == after.keys() and any(not np.array_equal(before[n], after[n]) for n in before)
