"""Masks made wrong on purpose: seeded, told where, of the size asked for, in 2D and in 3D."""

import numpy as np
import pytest
from RefSegLib.errors import BadInput
from RefSegLib.noisy.mask_noise import KINDS, corrupt, corrupt_some
from RefSegLib.quality.metrics import dice


def disc(shape=(1, 60, 70), radius=14) -> np.ndarray:
    """A disc, or a ball, of label 1 with a core of label 2."""
    center = np.array(shape) // 2
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) - center
    if shape[0] == 1:
        at = at[..., 1:]
    distance = np.linalg.norm(at, axis=-1)
    return ((distance < radius).astype(np.uint16) + (distance < radius / 2)).astype(np.uint16)


SHAPES = [((1, 60, 70), 14), ((60, 70), 14), ((26, 30, 34), 9)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "radius"), SHAPES)
def test_noise_changes_what_it_says_it_changes_and_no_more(kind, shape, radius):
    labels = disc(shape, radius)
    before = labels.copy()
    result = corrupt(labels, kind, 0.7, np.random.default_rng(3))
    assert np.array_equal(labels, before)
    assert result.labels.dtype == labels.dtype and result.kind == kind
    assert np.array_equal(result.changed, result.labels != labels) and result.changed.any()
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    assert 0.2 < dice(result.labels > 0, labels > 0) < 0.99


def test_each_kind_does_what_its_name_says():
    labels = disc()
    wider, narrower, moved, parts = (
        corrupt(labels, kind, 0.7, np.random.default_rng(0)).labels > 0
        for kind in ("dilation", "erosion", "shift", "missing")
    )
    mask = labels > 0
    assert (wider & mask).sum() == mask.sum() < wider.sum()
    assert (narrower & mask).sum() == narrower.sum() < mask.sum()
    assert (parts & mask).sum() == parts.sum() < 0.8 * mask.sum()
    assert abs(moved.sum() / mask.sum() - 1) < 0.1 and (moved & ~mask).any() and (mask & ~moved).any()


@pytest.mark.parametrize("kind", KINDS)
def test_stronger_noise_changes_more(kind):
    def mean(strength):
        return np.mean([corrupt(disc(), kind, strength, np.random.default_rng(n)).changed.sum() for n in range(8)])

    assert mean(0.3) < mean(0.9)


def test_the_share_of_masks_is_exact_and_the_same_for_the_same_seed():
    masks = {f"p{n}": disc() for n in range(20)}
    first, again, other = (corrupt_some(masks, 0.3, 0.5, seed) for seed in (1, 1, 2))
    wrong = {name for name, one in first.items() if one.kind}
    assert len(wrong) == 6
    assert all(first[name].changed.any() == (name in wrong) for name in masks)
    assert all(np.array_equal(first[name].labels, again[name].labels) for name in masks)
    assert any(not np.array_equal(first[name].labels, other[name].labels) for name in masks)


def test_nothing_outlined_stays_nothing():
    empty = np.zeros((1, 8, 8), np.uint16)
    for kind in KINDS:
        assert not corrupt(empty, kind, 1.0, np.random.default_rng(0)).changed.any()


def test_unknown_noise_and_shares_are_refused():
    with pytest.raises(BadInput, match="dilation"):
        corrupt(disc(), "coffee", 0.5, np.random.default_rng(0))
    with pytest.raises(BadInput, match="strength"):
        corrupt(disc(), "shift", 0.0, np.random.default_rng(0))
    with pytest.raises(BadInput, match="share"):
        corrupt_some({"a": disc()}, 1.5, 0.5, 0)
