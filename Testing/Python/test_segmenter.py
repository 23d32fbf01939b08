"""Networks run by torch and by OpenVINO."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from RefSegLib.errors import BadInput
from RefSegLib.inference import segmenter as backends
from RefSegLib.inference.segmenter import OpenVinoSegmenter, Segmenter, TorchSegmenter, load_segmenter
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec


def a_spec(dimensions: int = 3, name: str = "dynunet") -> SegmenterSpec:
    return SegmenterSpec(
        name="test",
        dimensions=dimensions,
        channels=("T1", "T2"),
        labels=(Label(value=1, name="Thing", color=(1, 0, 0)), Label(value=2, name="Other", color=(0, 1, 0))),
        spacing=(0, 0, 0),
        patch=(1, 32, 48) if dimensions == 2 else (16, 24, 32),
        network=Network(name=name, arguments={"filters": [4, 8, 8]}),
    )


def a_network(spec: SegmenterSpec) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_segmenter(spec).eval()


def a_version(spec: SegmenterSpec) -> SimpleNamespace:
    weights = {name: value.numpy() for name, value in a_network(spec).state_dict().items()}
    return SimpleNamespace(spec=spec, segmenter=lambda: weights)


def patches(spec: SegmenterSpec, number: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(number, 2, *spec.patch)).astype(np.float32)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["dynunet", "unet"])
def test_openvino_gives_the_logits_of_torch(dimensions, name):
    spec = a_spec(dimensions, name)
    network = a_network(spec)
    expected = TorchSegmenter(spec, network).logits(patches(spec))
    found = OpenVinoSegmenter(spec, network).logits(patches(spec))
    assert found.shape == expected.shape == (3, 3, *spec.patch) and found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_results_of_openvino_stay_when_it_is_called_again():
    spec = a_spec()
    segmenter = OpenVinoSegmenter(spec, a_network(spec))
    first = segmenter.logits(patches(spec)[:1])
    before = first.copy()
    segmenter.logits(patches(spec)[1:2])
    np.testing.assert_array_equal(first, before)


def test_other_sizes_than_the_patch_run_too():
    spec = a_spec()
    network = a_network(spec)
    larger = np.random.default_rng(0).normal(size=(1, 2, 32, 32, 32)).astype(np.float32)
    expected = TorchSegmenter(spec, network).logits(larger)
    found = OpenVinoSegmenter(spec, network).logits(larger)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_a_tensor_is_answered_by_a_tensor():
    spec = a_spec()
    segmenter = TorchSegmenter(spec, a_network(spec))
    found = segmenter.logits(torch.from_numpy(patches(spec)))
    assert isinstance(found, torch.Tensor) and isinstance(segmenter, Segmenter)
    np.testing.assert_array_equal(found.numpy(), segmenter.logits(patches(spec)))


def test_changed_weights_of_the_module_change_the_result():
    spec = a_spec()
    segmenter = TorchSegmenter(spec, a_network(spec))
    before = segmenter.logits(patches(spec))
    with torch.no_grad():
        for parameter in segmenter.module.parameters():
            parameter.mul_(1.5)
    assert not np.allclose(segmenter.logits(patches(spec)), before)


def test_a_stored_version_is_run_by_openvino_on_a_cpu():
    spec = a_spec()
    segmenter = load_segmenter(a_version(spec), device="cpu")
    assert isinstance(segmenter, OpenVinoSegmenter)
    expected = TorchSegmenter(spec, a_network(spec)).logits(patches(spec))
    np.testing.assert_allclose(segmenter.logits(patches(spec)), expected, atol=2e-3 * np.abs(expected).max())


def test_torch_steps_in_where_openvino_cannot_and_says_why(monkeypatch):
    def refuse(spec, module):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(backends, "OpenVinoSegmenter", refuse)
    segmenter = load_segmenter(a_version(a_spec()), device="cpu")
    assert isinstance(segmenter, TorchSegmenter) and "no such operation" in segmenter.reason


@pytest.mark.parametrize("device", ["tpu", "cuda" if not torch.cuda.is_available() else "gpu"])
def test_a_missing_device_is_refused_with_those_that_are_there(device):
    with pytest.raises(BadInput, match=f"no device '{device}'.*cpu"):
        load_segmenter(a_version(a_spec()), device=device)
