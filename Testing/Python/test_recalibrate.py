"""Teaching reflection anew about a stored model: the networks stay, the settings are new."""

import sys
from pathlib import Path

import numpy as np
import pytest
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.training.calibrate import recalibrate
from RefSegLib.training.cases import pair_cases
from RefSegLib.training.split import split_of
from RefSegLib.volume.io import write_image, write_labels

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from tiny_learning import SPEC, an_image, an_untrained_version, arrays


@pytest.fixture
def cases(tmp_path):
    """Two patients who train, two who validate."""
    names = [f"p{n}" for n in range(60)]
    chosen = [n for role in ("train", "validation") for n in [name for name in names if split_of(name) == role][:2]]
    for seed, name in enumerate(chosen):
        image, labels = an_image(seed)
        write_image(image, tmp_path / "images" / f"{name}.nii.gz")
        write_labels(labels, tmp_path / "labels" / f"{name}.nii.gz")
    return pair_cases(tmp_path / "images", tmp_path / "labels")


def test_a_recalibrated_version_has_the_same_networks_and_new_settings(tmp_path, cases):
    start = an_untrained_version(tmp_path / "store")
    store = ModelStore(tmp_path / "store")
    made = recalibrate(start, cases, store, seed=0)
    assert store.active(SPEC.name) == made.version != start.version
    assert made.manifest.parent == f"{start.name}@{start.version}"
    assert made.segmenter_bytes() == start.segmenter_bytes()
    mine, before = made.synthesizer(), start.synthesizer()
    assert all(np.array_equal(mine[name], before[name]) for name in before)
    assert made.manifest.reflection["report"]["conditions"] > 0 and not start.manifest.reflection
    assert not list((tmp_path / "store" / "training").iterdir())


def test_a_version_that_is_not_active_stays_so(tmp_path, cases):
    old = an_untrained_version(tmp_path / "store")
    new = an_untrained_version(tmp_path / "store", seed=1)
    made = recalibrate(old, cases, ModelStore(tmp_path / "store"))
    assert ModelStore(tmp_path / "store").active(SPEC.name) == new.version != made.version


def test_a_model_without_a_synthesizer_has_nothing_to_calibrate(tmp_path, cases):
    store = ModelStore(tmp_path / "store")
    from RefSegLib.models.networks import build_segmenter

    bare = store.add(SPEC, arrays(build_segmenter(SPEC)))
    with pytest.raises(BadInput, match="train-synthesizer"):
        recalibrate(bare, cases, store)


def test_settings_of_another_refseg_are_set_aside_and_the_user_is_told(tmp_path, caplog):
    start = an_untrained_version(tmp_path / "store")
    old = ModelStore(tmp_path / "store").add(
        SPEC, start.segmenter(), start.synthesizer(), reflection={"margin": 0.1, "estimate": {"labels": {"1": {}}}}
    )
    engine = Engine(old, "cpu")
    assert "refseg calibrate" in caplog.text and engine.settings.estimate is None
    image, labels = an_image(0)
    assert engine.segment(image).labels.array.shape == labels.array.shape
