"""Reflection on a small world whose networks are known exactly: bright balls that a threshold finds."""

import functools
import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from RefSegLib.errors import Cancelled
from RefSegLib.inference.segmenter import OpenVinoSegmenter, TorchSegmenter
from RefSegLib.inference.tiling import infer
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.models.spec import Label, Network, Normalization, SegmenterSpec
from RefSegLib.progress import Progress
from RefSegLib.quality.metrics import dice
from RefSegLib.reflection.adjust import adjust, norm_parameters, torch_module
from RefSegLib.reflection.candidates import NAMES, quantile_curve, transformed
from RefSegLib.reflection.consensus import consensus_region
from RefSegLib.reflection.drawing import WORTHWHILE
from RefSegLib.reflection.judge import Judge, Verdict
from RefSegLib.reflection.looking import Looked, choose
from RefSegLib.reflection.reflect import reflect
from RefSegLib.reflection.settings import EarlyExit, ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer
from torch import nn

SPEC = SegmenterSpec(
    name="balls",
    channels=("brightness",),
    labels=(Label(value=1, name="ball", color=(1, 0, 0)),),
    spacing=(1, 1, 1),
    patch=(16, 16, 16),
    network=Network(name="unet", arguments={"filters": [4, 8, 8]}),
)


class Threshold(nn.Module):
    """Finds what is brighter than two thirds of the range; its normalization layer passes intensities on."""

    def __init__(self, threshold: float = 0.67) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(1).eval()
        self.threshold = threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = 30 * (self.norm(x) - self.threshold)
        return torch.cat([-margin, margin], 1) / 2


class Painter(nn.Module):
    """Paints structures bright and everything else dark."""

    def __init__(self) -> None:
        super().__init__()
        self.brightness = nn.Parameter(torch.tensor([0.2, 0.9]))

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nckji,c->nkji", masks, self.brightness)[:, None]


def ball(center: tuple[int, int, int] = (11, 12, 13), radius: float = 6) -> np.ndarray:
    distance = np.linalg.norm(np.indices((22, 24, 26)) - np.array(center)[:, None, None, None], axis=0)
    return distance <= radius


def picture(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.03, mask.shape)
    return SPEC.normalization((0.2 + 0.7 * mask + noise)[None].astype(np.float32))


def darkened(array: np.ndarray) -> np.ndarray:
    """The picture as through a coil that sees one side only: the threshold finds half of the ball."""
    gain = np.exp(np.linspace(-2.4, 0.0, array.shape[-1], dtype=np.float32))
    return SPEC.normalization((array + 0.1) * gain)


@functools.cache
def painted() -> Synthesizer:
    return Synthesizer(SPEC, Painter())


def segmenter() -> TorchSegmenter:
    return TorchSegmenter(SPEC, Threshold())


def weights_of(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


def settings_for(array: np.ndarray, **values) -> ReflectionSettings:
    curve = tuple(tuple(row) for row in quantile_curve(array).tolist())
    return ReflectionSettings(reference=curve, **values)


def test_a_good_mask_is_kept():
    mask = ball()
    array = picture(mask)
    found = reflect(array, segmenter(), painted(), settings_for(array))
    assert not found.accepted
    assert found.reason.startswith("First mask kept")
    assert found.changed == 1.0
    assert np.array_equal(found.probabilities, infer(segmenter(), array))
    assert [candidate.name for candidate in found.candidates] == list(NAMES)
    assert found.similarity_after == found.similarity_before == found.candidates[0].score


def test_a_darkened_image_is_rescued_and_the_user_is_told():
    mask = ball()
    array = picture(mask)
    dark = darkened(array)
    before = infer(segmenter(), dark).argmax(0)
    wrong = dice(before == 1, mask)
    assert wrong < 0.75
    found = reflect(dark, segmenter(), painted(), settings_for(array))
    assert found.accepted
    assert dice(found.probabilities.argmax(0) == 1, mask) > wrong + 0.15
    assert found.similarity_after > found.similarity_before + 0.02
    assert max(found.candidates, key=lambda c: c.score).name in found.reason
    assert "please check" in found.reason
    assert found.changed == pytest.approx(dice(before == 1, found.probabilities.argmax(0) == 1))


def test_the_margin_decides():
    array = picture(ball())
    found = reflect(darkened(array), segmenter(), painted(), settings_for(array, margin=9.0))
    assert not found.accepted
    assert max(c.score for c in found.candidates) > found.candidates[0].score


def test_without_a_synthesizer_the_first_mask_stands_and_the_reason_says_so():
    array = picture(ball())
    found = reflect(array, segmenter(), None, None)
    assert "not available" in found.reason
    assert not found.accepted and found.proxy is None and found.similarity_before is None
    assert np.array_equal(found.probabilities, infer(segmenter(), array))
    assert found.suspect.shape == array.shape[1:]


def test_where_nothing_is_found_there_is_nothing_to_reflect_on():
    array = picture(np.zeros((22, 24, 26), bool))
    network = TorchSegmenter(SPEC, Threshold(50.0))
    found = reflect(array, network, painted(), settings_for(array))
    assert "no structure was found" in found.reason
    assert not found.accepted and np.isfinite(found.suspect).all()


def test_clean_cases_cost_one_inference():
    calls = []

    class Counting(TorchSegmenter):
        def logits(self, patches):
            calls.append(len(patches))
            return super().logits(patches)

    array = picture(ball())
    network = Counting(SPEC, Threshold())
    first = infer(network, array)
    once = len(calls)
    early = EarlyExit(score=1.8, confidence=0.9)
    found = reflect(array, network, painted(), settings_for(array, early=early), probabilities=first)
    assert len(calls) == once
    assert "agrees well" in found.reason and not found.accepted
    assert reflect(darkened(array), network, painted(), settings_for(array, early=early)).accepted


def test_an_image_out_of_the_known_range_is_said_to_be():
    array = picture(ball())
    found = reflect(array, segmenter(), painted(), settings_for(array, known=1.99))
    assert "does not look like" in found.reason


def test_suspect_voxels_are_the_wrong_ones():
    mask = ball()
    array = picture(mask)
    damaged = array.copy()
    damaged[0, 9:13, 10:14, 11:15] = 0.66  # inside the ball, near the threshold: a hole in the mask
    found = reflect(damaged, segmenter(), painted(), settings_for(array, margin=9.0))
    wrong = (found.probabilities.argmax(0) == 1) != mask
    assert wrong.sum() > 20
    assert found.suspect.dtype == np.float32
    assert found.suspect.min() >= 0 and found.suspect.max() <= 1
    assert found.suspect[wrong].mean() > 3 * found.suspect[~wrong].mean()


@pytest.mark.parametrize("kind", ["percentile", "zscore", "window"])
def test_every_candidate_is_an_image_the_network_can_take(kind):
    normalization = Normalization(kind=kind) if kind != "window" else Normalization(kind=kind, low=-160, high=240)
    spec = SPEC.model_copy(update={"normalization": normalization, "channels": ("a", "b")})
    rng = np.random.default_rng(0)
    array = normalization(rng.normal(40, 80, (2, 1, 20, 22)).astype(np.float32))
    reference = quantile_curve(normalization(rng.gamma(2, 60, (2, 1, 20, 22)).astype(np.float32)))
    for name in NAMES:
        seen = transformed(array, name, spec, reference)
        assert seen.shape == array.shape and seen.dtype == np.float32 and np.isfinite(seen).all(), name
    assert transformed(array, "identity", spec) is array


def test_a_region_is_what_most_see_and_what_one_sees_only_where_the_others_see_nothing():
    here, there = ball().astype(np.float32), ball((11, 12, 5), 3).astype(np.float32)
    region = consensus_region([here, here, there])
    assert region[here > 0].all()
    assert not region[11, 12, 3]
    alone = consensus_region([there, here * 0, here * 0, here * 0])  # nobody contradicts
    assert alone[there > 0].all() and not alone[11, 12, 20]
    assert not consensus_region([here * 0.1, here * 0.2]).any()
    flat = consensus_region([ball()[11:12].astype(np.float32)])
    assert flat.shape[0] == 1 and flat.sum() > ball()[11].sum()


def trained_pair(seed: int = 0) -> tuple[nn.Module, Synthesizer]:
    """Real networks of the kind that ships, weights random: for what must hold whatever the weights are."""
    torch.manual_seed(seed)
    return build_segmenter(SPEC).eval(), Synthesizer(SPEC, build_synthesizer(SPEC))


@pytest.mark.parametrize("make", [TorchSegmenter, OpenVinoSegmenter])
def test_adjusting_raises_the_score_and_leaves_the_model_bit_for_bit(make):
    module, synthesizer = trained_pair()
    network = make(SPEC, module)
    array = picture(ball())
    before, painter = weights_of(module), weights_of(synthesizer.module)
    probabilities = infer(network, array)
    judge = Judge(array, np.ones(array.shape[1:], bool), synthesizer)
    settings = ReflectionSettings(steps=5)
    moved, trace = adjust(array, network, judge, settings)
    assert len(trace) == 6 and trace[-1] > trace[0]
    assert moved is not None and not np.array_equal(moved, probabilities)
    assert weights_of(module) == before and weights_of(synthesizer.module) == painter
    assert np.array_equal(infer(network, array), probabilities)
    assert all(p.grad is None for p in (*module.parameters(), *synthesizer.module.parameters()))


def test_only_normalization_layers_are_adjusted():
    module, _ = trained_pair()
    chosen = norm_parameters(module)
    assert 0 < len(chosen) < len(list(module.parameters()))
    assert all(p.ndim == 1 for p in chosen)
    assert torch_module(TorchSegmenter(SPEC, nn.Conv3d(1, 2, 1))) is None


class Broken(Painter):
    """Paints a number of times, then nonsense or nothing."""

    def __init__(self, after: int, how: str) -> None:
        super().__init__()
        self.left, self.how = after, how

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0 and self.how == "raise":
            raise MemoryError("no memory left")
        return super().forward(masks) * (float("nan") if self.left < 0 else 1.0)


def test_numbers_that_break_down_while_adjusting_change_nothing():
    mask = ball()
    array = picture(mask)
    network = segmenter()
    before = weights_of(network.module)
    broken = Synthesizer(SPEC, Broken(len(NAMES) + 2, "nan"))
    found = reflect(array, network, broken, settings_for(array, steps=5))
    assert len(found.trace) == 2
    assert np.isfinite(found.probabilities).all()
    assert dice(found.probabilities.argmax(0) == 1, mask) > 0.95
    assert weights_of(network.module) == before


def test_a_step_too_far_is_not_kept():
    array = picture(ball())
    network = segmenter()
    before = weights_of(network.module)
    kept = reflect(array, network, painted(), settings_for(array))
    found = reflect(array, network, painted(), settings_for(array, steps=5, rate=1e30))
    assert np.array_equal(found.probabilities, kept.probabilities)
    assert weights_of(network.module) == before


def test_memory_that_runs_out_on_the_way_leaves_mask_and_model_as_they_were():
    array = picture(ball())
    network = segmenter()
    before = weights_of(network.module)
    broken = Synthesizer(SPEC, Broken(len(NAMES) + 2, "raise"))
    found = reflect(array, network, broken, settings_for(array, steps=5))
    assert "Memory ran out" in found.reason and not found.accepted
    assert np.array_equal(found.probabilities, infer(network, array))
    assert weights_of(network.module) == before


def test_cancel_at_any_step_leaves_the_model_as_it_was():
    array = picture(ball())
    network = segmenter()
    before = weights_of(network.module)
    settings = settings_for(array, steps=2, candidates=NAMES[:3])
    reports: list[str] = []
    reflect(array, network, painted(), settings, progress=Progress(lambda _, text: reports.append(text)))
    assert any("Adjusting" in text for text in reports)
    for stop in range(len(reports)):
        asked = iter(range(len(reports) + 1))
        with pytest.raises(Cancelled):
            reflect(
                array, network, painted(), settings, progress=Progress(cancelled=lambda a=asked, s=stop: next(a) >= s)
            )
        assert weights_of(network.module) == before


def test_two_dimensional_models_reflect_slice_by_slice():
    spec = SPEC.model_copy(update={"dimensions": 2, "patch": (1, 16, 16)})
    mask = ball()[9:13]
    array = picture(mask)
    network = TorchSegmenter(spec, Threshold())
    found = reflect(darkened(array), network, Synthesizer(spec, Painter()), settings_for(array))
    assert found.accepted
    before = infer(network, darkened(array)).argmax(0) == 1
    assert dice(found.probabilities.argmax(0) == 1, mask) > dice(before, mask) + 0.1


def test_large_boxes_are_drawn_in_blocks_that_fit_together(monkeypatch):
    array = picture(ball())
    soft = np.stack([~ball(), ball()]).astype(np.float32)
    judge = Judge(array, ball(), Synthesizer(SPEC, Painter()))
    whole = judge(soft)
    monkeypatch.setattr("RefSegLib.reflection.judge.BLOCK", 2000)
    blocks = judge(soft)
    assert np.array_equal(whole.proxy, blocks.proxy)
    assert whole.ssim == blocks.ssim


def test_openvino_draws_what_torch_draws():
    _, synthesizer = trained_pair()
    soft = np.stack([~ball(), ball()]).astype(np.float32)
    judge = Judge(picture(ball()), ball(), synthesizer)
    slow = judge(soft)
    for _ in range(WORTHWHILE):
        fast = judge(soft)
    assert not np.array_equal(slow.proxy, fast.proxy)  # it has taken over
    assert np.abs(slow.proxy - fast.proxy).max() < 1e-3
    assert slow.ssim == pytest.approx(fast.ssim, abs=1e-3)


def test_settings_survive_json():
    array = picture(ball())
    settings = settings_for(array, early=EarlyExit(score=1.8, confidence=0.9), margin=0.03)
    assert ReflectionSettings.model_validate_json(settings.model_dump_json()) == settings
    assert replace(reflect(array, segmenter(), painted(), settings), reason="").reason == ""


def test_quite_another_mask_takes_the_place_of_one_that_fits_only_if_that_fits_badly():
    def a_mask(name, low, high, similarity):
        probabilities = np.zeros((2, 4, 20, 20), np.float32)
        probabilities[1, 1:3, low:high, 5:15] = 1
        probabilities[0] = 1 - probabilities[1]
        found = Looked(name, probabilities)
        found.verdict = Verdict(similarity, 0.0, probabilities[0], probabilities[0])
        return found

    first, moved, elsewhere = a_mask("identity", 2, 9, 0.3), a_mask("denoised", 3, 10, 0.4), a_mask("other", 9, 16, 0.9)
    settings = ReflectionSettings(margin=0.05, known=0.2)
    assert choose([first, moved, elsewhere], settings) is moved
    assert choose([first, elsewhere], settings) is first
    assert choose([first, moved, elsewhere], settings.model_copy(update={"known": 0.35})) is elsewhere
