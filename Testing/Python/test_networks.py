"""Networks by name keep the size of what they see, in two and in three dimensions."""

import pytest
import torch
from RefSegLib.errors import BadInput
from RefSegLib.models.networks import build_segmenter, build_synthesizer, divisors, parameters_in_millions
from RefSegLib.models.spec import SegmenterSpec


def spec(patch=(16, 16, 16), dimensions=3, name="dynunet", channels=("T1",), **arguments) -> SegmenterSpec:
    return SegmenterSpec(
        name="test",
        dimensions=dimensions,
        channels=channels,
        labels=[{"value": v, "name": f"part {v}", "color": (1, 0, 0)} for v in (1, 2)],
        spacing=(1, 1, 1),
        patch=patch,
        network={"name": name, "arguments": {"filters": [4, 8, 8]} | arguments},
    )


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("name", ["dynunet", "unet"])
@pytest.mark.parametrize(
    ("dimensions", "patch", "seen"),
    [(3, (16, 16, 16), (8, 16, 12)), (3, (5, 16, 16), (5, 20, 16)), (2, (1, 16, 16), (3, 12, 20))],
    ids=["3D", "thick slices", "2D"],
)
def test_any_size_that_the_divisors_divide_comes_back(name, norm, dimensions, patch, seen):
    model = spec(patch, dimensions, name, ("a", "b"), norm=norm)
    assert all(n % d == 0 for n, d in zip(seen, divisors(model), strict=True))
    images = torch.rand(2, 2, *seen)
    assert build_segmenter(model)(images).shape == (2, 3, *seen)
    assert build_synthesizer(model)(torch.rand(1, 3, *seen)).shape == (1, 1, *seen)


def test_axes_are_halved_only_while_voxels_remain():
    assert divisors(spec((16, 16, 16))) == (4, 4, 4)
    assert divisors(spec((10, 16, 16))) == (2, 4, 4)
    assert divisors(spec((5, 32, 16))) == (1, 4, 4)
    assert divisors(spec((1, 32, 16), dimensions=2)) == (1, 4, 4)


def test_slices_of_a_2d_network_do_not_see_each_other():
    module = build_segmenter(spec((1, 16, 16), dimensions=2)).eval()
    images = torch.rand(1, 1, 3, 16, 16)
    with torch.inference_mode():
        together = module(images)
        for k in range(3):
            torch.testing.assert_close(together[:, :, k : k + 1], module(images[:, :, k : k + 1]))


def test_batch_norm_networks_carry_statistics_and_instance_norm_networks_do_not():
    def has_statistics(norm):
        return any("running_mean" in name for name in build_segmenter(spec(norm=norm)).state_dict())

    assert has_statistics("batch")
    assert not has_statistics("instance")


def test_the_shipped_description_fits_into_its_budget():
    from RefSegLib.resources import resource

    model = SegmenterSpec.model_validate_json(resource("specs/hippocampus.json").read_text())
    for build in (build_segmenter, build_synthesizer):
        assert 4 * parameters_in_millions(build(model)) <= 10


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (spec(name="resnet"), "no network 'resnet'"),
        (spec(norm="group"), "group"),
        (spec(depth=4), "depth"),
        (spec(patch=(18, 16, 16)), "cannot be halved"),
        (spec(filters=[8, 8]), "three or more levels"),
    ],
)
def test_what_cannot_be_built_is_said(model, words):
    with pytest.raises(BadInput, match=words):
        build_segmenter(model)
