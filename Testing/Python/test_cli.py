"""The commands as a person types them, on a small model that is really trained."""

import itertools
import json
import sys

import numpy as np
import pytest
from InteractiveLearningLib import cli
from RefSegLib.engine import Engine, suspect_map
from RefSegLib.errors import Cancelled
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, read_labels, write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume

SPEC = {
    "name": "ball",
    "channels": ["MR"],
    "labels": [{"value": 1, "name": "ball", "color": [1, 0, 0]}],
    "spacing": [1, 1, 1],
    "patch": [16, 16, 16],
    "network": {"name": "unet", "arguments": {"filters": [6, 8, 12]}},
}
OBLIQUE = ((0.0, 0.6, 0.8), (0.0, -0.8, 0.6), (1.0, 0.0, 0.0))


def a_ball(seed: int) -> tuple[Volume, LabelMap]:
    rng = np.random.default_rng(seed)
    grid = Grid((18, 17, 16), (1.0, 1.0, 1.0), OBLIQUE, (5.0, -7.0, 30.0))
    at = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1) - rng.uniform(6, 10, 3)
    inside = np.linalg.norm(at, axis=-1) < rng.uniform(3.5, 5)
    image = inside * 100 + rng.normal(0, 12, grid.shape) + 40
    return Volume(image.astype(np.float32), grid), LabelMap(inside.astype(np.uint8), grid)


@pytest.fixture(scope="module")
def the_place(tmp_path_factory):
    """A folder with images, labels, a spec, and a store with a trained model."""
    place = tmp_path_factory.mktemp("cli")
    for n in range(24):
        image, labels = a_ball(n)
        write_image(image, place / "images" / f"p{n:03d}.nii.gz")
        write_labels(labels, place / "labels" / f"p{n:03d}.nii.gz")
    (place / "spec.json").write_text(json.dumps(SPEC))
    data = ["--images", f"{place}/images", "--labels", f"{place}/labels"]
    assert run("train", "--spec", f"{place}/spec.json", *data, "--name", "ball", "--epochs", "6", at=place) == 0
    return place


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


def test_a_trained_model_is_active_and_listed_with_its_test_score(the_place, capsys):
    assert run("models", "list", at=the_place) == 0
    assert "1 *" in capsys.readouterr().out
    manifest = ModelStore(the_place / "store").load("ball").manifest
    assert manifest.scores["test"]["mean"]["dice"] > 0.6
    assert manifest.data["patients"]["train"] > manifest.data["patients"]["test"] > 0


def test_segment_writes_one_mask_per_image_on_its_own_grid(the_place, tmp_path):
    words = ("segment", f"{the_place}/images", "--model", "ball", "--out", f"{tmp_path}/masks")
    assert run(*words, "--report", f"{tmp_path}/report.json", at=the_place) == 0
    masks = sorted((tmp_path / "masks").iterdir())
    assert [m.name for m in masks] == [f"p{n:03d}.nii.gz" for n in range(24)]
    image, truth = a_ball(3)
    found = read_labels(tmp_path / "masks" / "p003.nii.gz")
    assert found.grid.same_as(image.grid, 1e-4)
    overlap = 2 * (found.array * truth.array).sum() / (found.array.sum() + truth.array.sum())
    assert overlap > 0.6
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"][3]["labels"][0]["voxels"] == int((found.array == 1).sum())
    assert report["images"][3]["regions"][0]["reflection"]["reason"]


def test_where_masks_may_be_wrong_is_written_and_their_quality_told(the_place, tmp_path, capsys):
    files = [f"{the_place}/images/p003.nii.gz", f"{the_place}/images/p004.nii.gz"]
    words = ("segment", *files, "--model", "ball", "--out", f"{tmp_path}/out", "--suspect", f"{tmp_path}/out")
    assert run(*words, "--report", f"{tmp_path}/report.json", at=the_place) == 0
    shown = capsys.readouterr().out
    names = ["p003.nii.gz", "p003_suspect.nii.gz", "p004.nii.gz", "p004_suspect.nii.gz"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    report = json.loads((tmp_path / "report.json").read_text())
    engine = Engine(ModelStore(the_place / "store").load("ball"))
    expected = suspect_map(engine.segment(read_image(files[1])))
    found = read_image(tmp_path / "out" / "p004_suspect.nii.gz")
    assert found.grid.same_as(a_ball(4)[0].grid, 1e-4) and found.array.dtype == np.float32
    np.testing.assert_allclose(found.array, expected.array, atol=1e-3)
    assert 0 <= found.array.min() < found.array.max() <= 1
    for entry in report["images"]:
        (region,) = entry["regions"]
        dice, (low, high) = (region["reflection"][f"estimated_{what}"]["1"] for what in ("dice", "interval"))
        assert region["labels"] == {"1": "ball"} and low <= dice <= high
        assert entry["suspect"].endswith("_suspect.nii.gz")
        assert f"  ball: estimated Dice {dice:.2f} ({low:.2f} to {high:.2f})" in shown


def test_a_map_is_refused_where_nothing_is_reflected_on_or_the_place_is_wrong(the_place, tmp_path, capsys):
    image = f"{the_place}/images/p003.nii.gz"
    words = ("segment", image, "--model", "ball", "--out", f"{tmp_path}/m.nrrd", "--suspect")
    refused = {
        (f"{tmp_path}/s.nrrd", "--no-reflect"): "leave out --no-reflect",
        (f"{tmp_path}/s.png",): "cannot hold a map of fractions",
        (f"{tmp_path}/m.nrrd",): "written twice",
        (image,): "both read and written",
    }
    for more, said in refused.items():
        assert run(*words, *more, at=the_place) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir()) and read_image(image).array.std() > 10


def test_without_a_synthesizer_the_mask_is_written_and_the_missing_map_told(the_place, tmp_path, capsys):
    version = ModelStore(the_place / "store").load("ball")
    alone = ModelStore(tmp_path / "store").add(version.spec, version.segmenter())
    ModelStore(tmp_path / "store").activate("ball", alone.version)
    words = ("segment", f"{the_place}/images/p003.nii.gz", "--model", "ball", "--out", f"{tmp_path}/m.nrrd")
    assert run(*words, "--suspect", f"{tmp_path}/s.nrrd", at=tmp_path) == 2
    assert "'ball' has no synthesizer" in capsys.readouterr().err
    assert read_labels(tmp_path / "m.nrrd").array.any() and not (tmp_path / "s.nrrd").exists()


def test_a_box_limits_the_mask(the_place, tmp_path):
    words = (
        "segment",
        f"{the_place}/images/p003.nii.gz",
        "--model",
        "ball@1",
        "--no-reflect",
        "--out",
        f"{tmp_path}/m.nrrd",
    )
    assert run(*words, "--roi", "0", "0", "0", "16", "17", "9", at=the_place) == 0
    assert not read_labels(tmp_path / "m.nrrd").array[9:].any()


def test_evaluate_reports_every_case_clean_and_shifted_by_every_method(the_place, tmp_path):
    words = ("evaluate", "--model", "ball", "--images", f"{the_place}/images", "--labels", f"{the_place}/labels")
    more = ("--methods", "none,reflect", "--shift", "noise:2", "--limit", "2", "--report", f"{tmp_path}/r.json")
    assert run(*words, *more, at=the_place) == 0
    cases = json.loads((tmp_path / "r.json").read_text())["cases"]
    assert len(cases) == 2 * 2 * 2
    assert {(c["method"], c["shift"]) for c in cases} == {
        (m, s) for m in ("none", "reflect") for s in (None, "noise:2")
    }
    for case in cases:
        assert case["applies"]
        assert 0 <= case["dice"]["ball"] <= 1


def annotated(the_place, tmp_path, prompts):
    words = ("annotate", "--model", "ball", "--images", f"{the_place}/images", "--labels", f"{the_place}/labels")
    more = ("--cases", "2", "--budget", "3", "--prompts", prompts, "--report", f"{tmp_path}/r.json")
    assert run(*words, *more, at=the_place) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert all(len(case["dice"]) == len(case["done"]) for case in report["cases"])
    return report


def test_a_robot_that_outlines_slices_makes_masks_better(the_place, tmp_path):
    curve = annotated(the_place, tmp_path, "slices")["summary"]["mean_dice"]
    assert curve[-1] > curve[0] + 0.02


def test_a_robot_that_clicks_changes_masks_with_every_click_and_harms_none(the_place, tmp_path):
    for case in annotated(the_place, tmp_path, "clicks")["cases"]:
        assert len(case["done"]) == 4
        steps = [step["ball"] for step in case["dice"]]
        assert all(before != after for before, after in itertools.pairwise(steps))
        assert steps[-1] > steps[0] - 0.02


def test_a_stream_learns_and_comes_to_verdicts(the_place, tmp_path):
    words = ("stream", "--model", "ball", "--images", f"{the_place}/images", "--labels", f"{the_place}/labels")
    assert run(*words, "--cases", "3", "--budget", "2", "--report", f"{tmp_path}/r.json", at=the_place) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["cases"]) == 3
    assert sum(report["summary"]["verdicts"].values()) >= 1


def test_models_go_to_another_machine_and_back(the_place, tmp_path):
    assert run("models", "export", "ball@1", f"{tmp_path}/ball.refseg", at=the_place) == 0
    assert run("models", "import", f"{tmp_path}/ball.refseg", at=tmp_path) == 0
    assert run("models", "verify", at=tmp_path) == 0
    assert ModelStore(tmp_path / "store").active("ball") == "1"


BAD = {
    "no such model": (("segment", "IMAGE", "--model", "nope", "--out", "x.nrrd"), "no model 'nope'"),
    "no such version": (("segment", "IMAGE", "--model", "ball@99", "--out", "x.nrrd"), "no version '99'"),
    "no such image": (("segment", "/nowhere.nii.gz", "--model", "ball", "--out", "x.nrrd"), "/nowhere.nii.gz"),
    "impossible box": (
        ("segment", "IMAGE", "--model", "ball", "--out", "x.nrrd", "--roi", *"999000"),
        "does not lie inside",
    ),
    "unknown shift": (("evaluate", "--model", "ball", "DATA", "--shift", "magic:3"), "is not a shift"),
    "unknown prompts": (("annotate", "--model", "ball", "DATA", "--prompts", "telepathy"), "telepathy"),
    "nothing to roll back to": (("models", "rollback", "ball"), "nothing to go back to"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_with_2_and_one_clear_line(the_place, capsys, words, said):
    data = ["--images", f"{the_place}/images", "--labels", f"{the_place}/labels"]
    given = []
    for word in words:
        given += data if word == "DATA" else [f"{the_place}/images/p000.nii.gz" if word == "IMAGE" else word]
    assert run(*given, at=the_place) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1


def test_an_image_without_content_is_refused_in_words(the_place, tmp_path, capsys):
    grid = Grid((8, 8, 8))
    for name, array in {"constant": np.ones(grid.shape), "nan": np.full(grid.shape, np.nan)}.items():
        write_image(Volume(array.astype(np.float32), grid), tmp_path / f"{name}.nrrd")  # NIfTI readers turn NaN to 0
        words = ("segment", f"{tmp_path}/{name}.nrrd", "--model", "ball", "--out", f"{tmp_path}/m.nrrd")
        assert run(*words, at=the_place) == 2
    shown = capsys.readouterr().err
    assert "same value" in shown
    assert "not numbers" in shown
    assert not (tmp_path / "m.nrrd").exists()


def test_a_running_reflection_can_be_stopped(the_place):
    engine = Engine(ModelStore(the_place / "store").load("ball"))
    heard = []
    stop = Progress(lambda fraction, message: heard.append(message), lambda: any("Looking again" in m for m in heard))
    noisy = a_ball(3)[0]
    noisy = Volume(-noisy.array, noisy.grid)  # a first mask that is not taken at once
    with pytest.raises(Cancelled):
        engine.segment(noisy, reflect=True, progress=stop)
