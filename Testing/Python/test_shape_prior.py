import json

import numpy as np
import pytest
from RefSegLib.bootstrapping.shape_prior import EllipsePrior, draw_ellipses, read_prior
from RefSegLib.errors import BadInput
from RefSegLib.resources import resource

ROUND = {"size": [0.5, 0.5], "aspect": [0.6, 0.6], "center_x": [0.5, 0.5], "center_y": [0.5, 0.5]}


def prior_of(**changed):
    return EllipsePrior(**ROUND | {"angle": [0, 0], "roughness": [0, 0]} | changed)


def test_an_ellipse_has_the_axes_place_and_angle_it_was_asked_for():
    for angle, axes in ((0, (40, 24)), (90, (24, 40))):
        drawn = draw_ellipses(prior_of(angle=[angle, angle]), (64, 80), 1, np.random.default_rng(0))[0] > 0.5
        rows, columns = np.nonzero(drawn)
        assert abs(np.ptp(columns) + 1 - axes[0]) <= 1 and abs(np.ptp(rows) + 1 - axes[1]) <= 1
        assert abs(columns.mean() + 0.5 - 40) < 0.1 and abs(rows.mean() + 0.5 - 32) < 0.1
        assert abs(drawn.sum() - np.pi / 4 * 40 * 24) < 0.03 * drawn.sum()


def test_a_positive_angle_turns_the_right_end_up():
    drawn = draw_ellipses(prior_of(angle=[45, 45]), (64, 64), 1, np.random.default_rng(0))[0]
    assert drawn[:32, 32:].sum() > drawn[32:, 32:].sum()


def test_a_rough_border_wanders_and_keeps_the_size():
    smooth = draw_ellipses(prior_of(), (64, 80), 1, np.random.default_rng(0))[0] > 0.5
    rough = draw_ellipses(prior_of(roughness=[0.1, 0.1]), (64, 80), 20, np.random.default_rng(0)) > 0.5
    assert all((one != smooth).sum() > 30 for one in rough)
    assert abs(rough.sum((1, 2)).mean() / smooth.sum() - 1) < 0.05


def test_the_same_seed_draws_the_same_masks():
    wide = prior_of(size=[0.3, 0.6], angle=[-90, 90], roughness=[0, 0.05])
    one, same, other = (draw_ellipses(wide, (48, 64), 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_prior_that_does_not_fit_the_image_is_refused_in_a_sentence():
    with pytest.raises(BadInput, match=r"does not fit the image.*Lower size"):
        draw_ellipses(prior_of(size=[1.8, 2.0]), (64, 80), 3, np.random.default_rng(0))
    with pytest.raises(BadInput, match=r"smallest ellipse.*Raise --size"):
        draw_ellipses(prior_of(size=[0.05, 0.5]), (64, 80), 3, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["fetal-head", "optic-disc"])
def test_the_shipped_priors_say_where_they_are_from_and_fit_a_frame(name):
    prior = read_prior(resource(f"specs/{name}-prior.json"))
    assert len(prior.source) > 100
    masks = draw_ellipses(prior, (48, 64), 50, np.random.default_rng(0))
    assert masks.mean((1, 2)).min() > 0.01 and masks.mean((1, 2)).max() < 0.7


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"size": [0.6, 0.4]}, "smaller number first"),
        ({"aspect": [0.5, 1.2]}, "at most 1"),
        ({"roughness": [0, 0.5]}, "no ellipse"),
        ({"center_x": [0.5]}, "center_x"),
        ({"radius": 3}, "radius"),
    ],
)
def test_a_prior_that_cannot_be_is_refused_with_the_file_and_the_number(tmp_path, changed, said):
    file = tmp_path / "prior.json"
    file.write_text(json.dumps(ROUND | changed))
    with pytest.raises(BadInput, match=said) as raised:
        read_prior(file)
    assert str(file) in str(raised.value)


def test_files_that_hold_no_prior_are_refused(tmp_path):
    with pytest.raises(BadInput, match="could not be read"):
        read_prior(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(BadInput, match="cannot be used"):
        read_prior(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="no text file"):
        read_prior(broken)
