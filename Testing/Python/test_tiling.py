"""Tiles: the same answer as the network on the whole, whatever the size."""

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from RefSegLib.errors import Cancelled
from RefSegLib.inference.segmenter import TorchSegmenter
from RefSegLib.inference.tiling import infer, slabs
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.progress import Progress


def a_spec(patch=(16, 16, 16), dimensions=3) -> SegmenterSpec:
    return SegmenterSpec(
        name="test",
        dimensions=dimensions,
        channels=("CT",),
        labels=(Label(value=1, name="Thing", color=(1, 0, 0)),),
        spacing=(0, 0, 0),
        patch=patch,
        network=Network(name="dynunet", arguments={"filters": [4, 8, 8]}),
    )


class Pointwise:
    """Logits that depend on each voxel alone, so that tiles must not be seen in the result; counts its patches."""

    def __init__(self, spec: SegmenterSpec) -> None:
        self.spec, self.seen, self.calls = spec, 0, 0

    def logits(self, patches: np.ndarray) -> np.ndarray:
        assert patches.shape[2:] == self.spec.patch and patches.dtype == np.float32
        self.seen += len(patches)
        self.calls += 1
        return np.concatenate([1 - patches, 3 * patches], axis=1)


def an_array(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(1, *shape)).astype(np.float32)


SIZES = [(16, 16, 16), (40, 33, 16), (17, 50, 29), (5, 7, 40), (1, 30, 30), (3, 2, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_tiles_leave_no_trace(size, overlap):
    array = an_array(*size)
    found = infer(Pointwise(a_spec()), array, overlap=overlap)
    expected = torch.softmax(torch.from_numpy(np.concatenate([1 - array, 3 * array])), 0).numpy()
    assert found.shape == (2, *size) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 33, 21), (16, 45, 60)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_the_result_is_that_of_monai(size, overlap):
    spec = a_spec()
    torch.manual_seed(3)
    module = build_segmenter(spec).eval()
    array = an_array(*size)
    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(array)[None], spec.patch, 2, module, overlap=overlap, mode="gaussian"
        )
    expected = torch.softmax(logits[0], 0).numpy()
    np.testing.assert_allclose(infer(TorchSegmenter(spec, module), array, overlap=overlap), expected, atol=1e-4)


def test_slices_of_a_flat_network_are_independent_and_go_in_batches():
    segmenter = Pointwise(a_spec((1, 16, 16), dimensions=2))
    array = an_array(50, 16, 20)
    found = infer(segmenter, array)
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(1 - 4 * array[0])), atol=1e-5)
    assert segmenter.seen == 100 and segmenter.calls == 1


def test_slabs_cover_every_slice_once_and_in_order():
    array = an_array(61, 200, 200)
    pieces = list(slabs(Pointwise(a_spec((16, 128, 128))), array))
    ends = [start + piece.shape[1] for start, piece in pieces]
    assert len(pieces) > 3 and [start for start, _ in pieces] == [0, *ends[:-1]] and ends[-1] == 61


def test_empty_tiles_are_computed_once_and_still_by_the_network():
    segmenter = Pointwise(a_spec())
    array = np.full((1, 64, 64, 64), 0.5, np.float32)
    array[:, :10, :10, :10] = an_array(10, 10, 10)
    found = infer(segmenter, array, overlap=0.0)
    assert segmenter.seen == 2
    assert infer(segmenter, np.full((1, 130, 200, 200), 0.5, np.float32)).shape and segmenter.seen == 3
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(1 - 4 * array[0])), atol=1e-5)


def test_a_tile_with_one_odd_voxel_is_not_empty():
    array = np.zeros((1, 32, 16, 16), np.float32)
    array[0, 1, 15, 15] = 1
    found = infer(Pointwise(a_spec()), array)
    assert found[1, 1, 15, 15] > 0.9 and found[1].sum() > 0 and (found[1] > 0.5).sum() == 1


def test_arrays_that_may_not_be_written_to_or_are_flipped_are_welcome():
    array = an_array(20, 20, 20)
    expected = infer(Pointwise(a_spec()), array[:, ::-1].copy())
    array.setflags(write=False)
    np.testing.assert_array_equal(infer(Pointwise(a_spec()), array[:, ::-1]), expected)


def test_progress_rises_and_cancel_stops_at_the_next_tile():
    segmenter = Pointwise(a_spec((64, 128, 128)))
    seen = []
    infer(segmenter, an_array(100, 200, 200), Progress(lambda fraction, message: seen.append(fraction)))
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1 and len(seen) == segmenter.seen + 1
    segmenter.seen = 0
    with pytest.raises(Cancelled):
        infer(segmenter, an_array(100, 200, 200), Progress(cancelled=lambda: segmenter.seen == 2))
    assert segmenter.seen == 2
