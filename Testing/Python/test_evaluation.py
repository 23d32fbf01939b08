"""`evaluate`: what it writes is what was measured, on the grid of the case."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.evaluation import METHODS, evaluate, summarize
from RefSegLib.inference.segmenter import TorchSegmenter, load_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import Progress
from RefSegLib.quality.shifts import parse
from RefSegLib.reflection.reflect import reflect
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer, load_synthesizer
from RefSegLib.training.cases import pair_cases
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume
from torch import nn

SPEC = SegmenterSpec(
    name="balls",
    channels=("brightness",),
    labels=(Label(value=1, name="ball", color=(1, 0, 0)), Label(value=2, name="ghost", color=(0, 1, 0))),
    spacing=(0, 0, 0),
    patch=(16, 16, 16),
    network=Network(name="unet", arguments={"filters": [4, 8, 8]}),
)
GRID = Grid((20, 22, 24), (2.0, 1.0, 1.0), ((0, 0, -1), (0, 1, 0), (1, 0, 0)), (5.0, 6.0, 7.0))


ROW = {
    *("case", "method", "shift", "applies", "dice", "hd95", "estimated_dice", "estimated_interval"),
    *("accepted", "reason", "seconds"),
}


class Threshold:
    """Finds what is brighter than two thirds of the range, and never the second label."""

    spec = SPEC

    def logits(self, patches: np.ndarray) -> np.ndarray:
        margin = 30 * (patches - 0.67)
        return np.concatenate([-margin, margin, -50 + 0 * margin], 1) / 2


class Painter(nn.Conv3d):
    """Paints structures bright and everything else dark."""

    def __init__(self) -> None:
        super().__init__(3, 1, 1, bias=False)
        self.weight.data[:] = self.weight.new_tensor([0.2, 0.9, 0.5]).reshape(1, 3, 1, 1, 1)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list:
    """Three bright balls as files; in the first, the reference is moved by one voxel of 2 mm."""
    folder = tmp_path_factory.mktemp("balls")
    for number in range(3):
        rng = np.random.default_rng(number)
        mask = np.linalg.norm(np.indices(GRID.shape) - np.array([10, 11, 12])[:, None, None, None], axis=0) <= 6
        image = 0.2 + 0.7 * mask + rng.normal(0, 0.03, mask.shape)
        truth = np.roll(mask, 1, axis=0) if number == 0 else mask
        for kind in ("images", "labels"):
            (folder / kind).mkdir(exist_ok=True)
        write_image(Volume(image.astype(np.float32), GRID), folder / "images" / f"ball{number}.nii.gz")
        write_labels(LabelMap(truth.astype(np.uint8), GRID), folder / "labels" / f"ball{number}.nii.gz")
    return pair_cases(folder / "images", folder / "labels")


@pytest.fixture(scope="module")
def result(cases) -> dict:
    shifts = [parse("bias:5"), parse("noise:1")]
    return evaluate(Threshold(), Synthesizer(SPEC, Painter()), ReflectionSettings(), cases, shifts=shifts)


def test_every_case_is_there_in_every_method_and_shift(result):
    rows = result["cases"]
    assert len(rows) == 3 * 3 * 2
    assert {(r["case"], r["method"], r["shift"]) for r in rows} == {
        (f"ball{n}", method, shift)
        for n in range(3)
        for method in ("none", "reflect")
        for shift in (None, "bias:5", "noise:1")
    }
    for row in rows:
        assert set(row) == ROW
        assert row["applies"]
        assert row["seconds"] > 0
        assert row["accepted"] is (None if row["method"] == "none" else row["accepted"])


def test_the_numbers_are_those_of_the_files(result):
    clean = {r["case"]: r for r in result["cases"] if r["shift"] is None and r["method"] == "none"}
    assert clean["ball1"]["dice"]["ball"] > 0.995
    assert clean["ball0"]["dice"]["ball"] == pytest.approx(0.86, abs=0.03)
    assert clean["ball0"]["hd95"]["ball"] == pytest.approx(2.0, abs=0.3)
    assert clean["ball1"]["dice"]["ghost"] == 1.0  # neither has it


def test_all_of_it_is_json(result):
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == result


def test_the_summary_counts_harm_and_help_against_none(result):
    by_method = result["summary"]["by_method"]
    assert by_method["none"]["clean"]["cases"] == 3
    assert "harmed" not in by_method["none"]["clean"]
    reflected = by_method["reflect"]["shifted"]
    assert reflected["cases"] == 6
    assert reflected["gain"] == pytest.approx(reflected["dice"] - by_method["none"]["shifted"]["dice"], abs=1e-3)
    assert set(by_method["reflect"]) == {"clean", "shifted", "bias:5", "noise:1"}


def row(
    case: str,
    method: str,
    dice: float,
    estimated: float | None = None,
    hd95: float | None = 1.0,
    shift: str | None = None,
    interval: list[float] | None = None,
) -> dict:
    return {
        "applies": True,
        "reason": None,
        "case": case,
        "method": method,
        "shift": shift,
        "dice": {"ball": dice},
        "hd95": {"ball": hd95},
        "estimated_dice": {"ball": estimated},
        "estimated_interval": {} if interval is None else {"ball": interval},
        "accepted": None,
        "seconds": 1.0,
    }


def test_harm_estimates_and_undefined_distances_are_summed_up_rightly():
    rows = [row(str(n), "none", d) for n, d in enumerate((0.5, 0.6, 0.8, 0.9))]
    rows += [
        row("0", "reflect", 0.8, 0.75),
        row("1", "reflect", 0.55, 0.65),
        row("2", "reflect", 0.81, 0.6),
        row("3", "reflect", 0.9, 0.95, None),
    ]
    summary = summarize(rows)
    found = summary["by_method"]["reflect"]["clean"]
    assert (found["harmed"], found["helped"], found["worst"]) == (0.25, 0.25, -0.05)
    assert found["hd95"]["ball"] == 1.0
    estimate = summary["estimate"]["reflect"]["overall"]
    assert estimate == summary["estimate"]["reflect"]["clean"]
    assert estimate["interval_90_holds"] is None
    assert estimate["mae"] == pytest.approx((0.05 + 0.10 + 0.21 + 0.05) / 4)
    assert estimate["bad"] == 1
    assert estimate["auroc_below_0.7"] == pytest.approx(2 / 3, abs=1e-3)
    assert "none" not in summary["estimate"]


def test_estimates_are_summed_up_clean_and_shifted_apart_with_their_intervals():
    rows = [
        row("0", "reflect", 0.8, 0.9, interval=[0.75, 0.95]),
        row("1", "reflect", 0.7, 0.9, interval=[0.75, 0.95]),
        row("0", "reflect", 0.5, 0.9, shift="noise:3", interval=[0.75, 0.95]),
        row("1", "reflect", 0.9, 0.9, shift="noise:3"),
    ]
    found = summarize(rows)["estimate"]["reflect"]
    assert {name: part["labels"] for name, part in found.items()} == {"overall": 4, "clean": 2, "shifted": 2}
    assert found["clean"]["mae"] == pytest.approx(0.15)
    assert found["shifted"]["mae"] == pytest.approx(0.2)
    assert found["overall"]["interval_90_holds"] == pytest.approx(1 / 3, abs=1e-3)
    assert found["clean"]["interval_90_holds"] == 0.5
    assert found["shifted"]["interval_90_holds"] == 0


def test_every_named_method_is_measured_or_says_that_it_does_not_apply(cases):
    found = evaluate(batch_norm(), None, None, cases, methods=METHODS, limit=1)
    rows = {r["method"]: r for r in found["cases"]}
    assert set(rows) == set(METHODS)
    assert all(r["applies"] and r["seconds"] > 0 for r in rows.values())
    assert rows["bn"]["accepted"]
    assert rows["bn"]["dice"] != rows["none"]["dice"]  # its statistics are far from those of the image
    assert found["summary"]["skipped"] == {}
    foreign = evaluate(Threshold(), None, None, cases, methods=("none", "tent"), limit=2)
    assert foreign["summary"]["by_method"].keys() == {"none"}
    assert "no torch network" in foreign["summary"]["skipped"]["tent"]
    skipped = [r for r in foreign["cases"] if r["method"] == "tent"]
    assert len(skipped) == 2
    for r in skipped:
        assert set(r) == ROW
        assert not r["applies"]
        assert r["dice"] == {}
    assert json.loads(json.dumps(foreign, allow_nan=False)) == foreign


def batch_norm() -> TorchSegmenter:
    """Brighter by one standard deviation than the mean is a ball, for statistics that fit no image of these."""
    norm = nn.BatchNorm3d(1)
    norm.running_mean.fill_(5.0)
    head = nn.Conv3d(1, 3, 1)
    head.weight.data[:] = torch.tensor([-6.0, 6.0, 0.0]).reshape(3, 1, 1, 1, 1)
    head.bias.data[:] = torch.tensor([6.0, -6.0, -50.0])
    return TorchSegmenter(SPEC, nn.Sequential(norm, head))


def test_a_benchmark_brings_methods_of_its_own(cases):
    @dataclass
    class Answer:
        probabilities: np.ndarray
        estimated_dice: dict
        estimated_interval: dict

    def everything(array, probabilities, segmenter, progress):
        flat = np.zeros_like(probabilities)
        flat[1] = 1
        return Answer(flat, {1: 0.25}, {1: (0.0, 0.5)})

    methods = {"none": None, "everything": everything}
    found = evaluate(Threshold(), None, None, cases, methods=methods, limit=1)
    none, own = found["cases"]
    assert (none["method"], own["method"]) == ("none", "everything")
    assert own["dice"]["ball"] < none["dice"]["ball"]
    assert own["estimated_dice"] == {"ball": 0.25, "ghost": None}
    assert own["estimated_interval"] == {"ball": [0.0, 0.5]}
    assert none["estimated_interval"] == {}
    assert found["summary"]["estimate"]["everything"]["clean"]["interval_90_holds"] == 1
    with pytest.raises(BadInput, match="no method given"):
        evaluate(Threshold(), None, None, cases, methods={})


def test_a_model_without_synthesizer_is_measured_all_the_same(cases):
    found = evaluate(Threshold(), None, None, cases, limit=1)
    none, reflected = found["cases"]
    assert none["dice"] == reflected["dice"]
    assert reflected["accepted"] is False
    assert reflected["estimated_dice"] == {"ball": None, "ghost": None}


def test_bad_requests_are_refused_and_a_running_one_stops(cases):
    with pytest.raises(BadInput, match="magic"):
        evaluate(Threshold(), None, None, cases, methods=["magic"])
    with pytest.raises(BadInput, match="no cases"):
        evaluate(Threshold(), None, None, [])
    with pytest.raises(Cancelled):
        evaluate(Threshold(), None, None, cases, progress=Progress(cancelled=lambda: True))


def test_the_same_shift_is_seen_by_every_run(cases):
    once, again = (
        evaluate(Threshold(), None, None, cases, methods=["none"], shifts=[parse("noise:4")], limit=2)["cases"]
        for _ in range(2)
    )
    assert [r["dice"] for r in once] == [r["dice"] for r in again]


def test_the_shipped_model_rescues_an_inverted_hippocampus_and_names_a_heart(shared_data, tmp_path):
    version = ModelStore(tmp_path).load("hippocampus")
    segmenter, synthesizer = load_segmenter(version, "cpu"), load_synthesizer(version)
    settings = ReflectionSettings.model_validate(version.manifest.reflection)
    folder = shared_data / "msd_hippocampus"
    case = next(c for c in pair_cases(folder / "images", folder / "labels") if c.role == "validation")
    found = evaluate(segmenter, synthesizer, settings, [case], shifts=[parse("invert:5")])["cases"]
    dices = {(r["method"], r["shift"]): np.mean(list(r["dice"].values())) for r in found}
    assert dices["reflect", None] > 0.8
    assert dices["none", "invert:5"] < 0.3
    assert dices["reflect", "invert:5"] > 0.8
    for row in found:
        for name, guess in row["estimated_dice"].items():
            assert guess is None or abs(guess - row["dice"][name]) < 0.15
    heart = read_image(shared_data / "acdc" / "images" / "patient001_frame01.nii.gz").array[:, :, 60:120, 60:120]
    reflection = reflect(version.spec.normalization(heart), segmenter, synthesizer, settings)
    assert "does not look like" in reflection.reason
