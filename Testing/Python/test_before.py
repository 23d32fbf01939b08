"""The mask as it was before reflection: from the engine, over the wire, and where there is none."""

from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.tiny_learning import SPEC, an_image, arrays
from InteractiveLearningLib.service.client import Client
from InteractiveLearningLib.service.remote import RemoteRunner
from RefSegLib import __version__
from RefSegLib.engine import Engine, first_mask
from RefSegLib.inference import predict
from RefSegLib.inference.predict import segment
from RefSegLib.inference.region import RegionOfInterest
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.models.store import ModelStore
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.volume.grid import Grid
from running_service import RunningService

GRID = Grid((18, 20, 22))


class Bright:
    """Finds what is bright: probabilities from the image alone."""

    spec = SPEC

    def logits(self, patches):
        return np.concatenate([0.5 - patches[:, :1], patches[:, :1], patches[:, :1] - 0.5], axis=1)


def more(array, probabilities, segmenter, progress):
    """A reflection that finds otherwise."""
    return SimpleNamespace(probabilities=probabilities[[0, 2, 1]] + np.float32(0))


def same(array, probabilities, segmenter, progress):
    return SimpleNamespace(probabilities=np.asarray(probabilities).view())


def test_the_first_mask_is_the_one_without_reflection_on_every_grid(a_grid):
    image = an_image(1, a_grid)[0]
    plain = segment(image, Bright())
    assert first_mask(plain) is None and plain.labels.array.any()
    reflected = segment(image, Bright(), refine=more)
    before = first_mask(reflected)
    assert not np.array_equal(reflected.labels.array, plain.labels.array)
    np.testing.assert_array_equal(before.array, plain.labels.array)
    assert before.grid is reflected.labels.grid
    assert first_mask(segment(image, Bright(), refine=same)) is None


def test_regions_that_were_kept_stay_as_they_are_in_the_first_mask(monkeypatch):
    image = an_image(2, GRID)[0]
    halves = [
        RegionOfInterest(GRID.crop((0, 0, 0), (18, 20, 12)), 0),
        RegionOfInterest(GRID.crop((0, 0, 8), (18, 20, 22)), 2),
    ]
    monkeypatch.setattr(predict, "find_regions", lambda *_: halves)

    def second(array, probabilities, segmenter, progress):
        return (more if array.shape[-1] == 14 else same)(array, probabilities, segmenter, progress)

    plain = segment(image, Bright())
    np.testing.assert_array_equal(first_mask(segment(image, Bright(), refine=second)).array, plain.labels.array)


def test_too_large_regions_have_no_first_mask(monkeypatch):
    monkeypatch.setattr(predict, "KEPT_PROBABILITIES", 1)
    assert first_mask(segment(an_image(2, GRID)[0], Bright(), refine=more)) is None


@pytest.fixture(scope="module")
def a_home(tmp_path_factory):
    """A store with an untrained model that takes any other mask for better."""
    import torch

    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(2)
    settings = ReflectionSettings(margin=0.0).model_dump(mode="json")
    weights = arrays(build_segmenter(SPEC)), arrays(build_synthesizer(SPEC))
    ModelStore(home).activate("balls", ModelStore(home).add(SPEC, *weights, reflection=settings).version)
    return home


@pytest.fixture(scope="module")
def a_service(a_home):
    service = RunningService(a_home).start()
    yield service
    service.end()


class Older(Client):
    """A client of a server that knows nothing of first masks."""

    def job(self, *asked, **options):
        answer = super().job(*asked, **options)
        if answer["result"]:
            answer["result"].pop("before")
        return answer


@pytest.mark.parametrize("kind", [Client, Older])
def test_the_first_mask_and_what_was_done_travel_and_older_servers_are_understood(a_home, a_service, kind):
    image = an_image(0, GRID)[0]
    version = ModelStore(a_home).load("balls")
    engine = Engine(version)
    here = engine.segment(image)
    first = engine.segment(image, reflect=False)
    assert first_mask(here) is not None
    with kind(a_service.url, a_service.token) as client:
        found = RemoteRunner(client).segmented(image, "balls")
        without = RemoteRunner(client).segmented(image, "balls", reflect=False)
    np.testing.assert_array_equal(found.labels.array, here.labels.array)
    if kind is Older:
        assert found.before is None
    else:
        np.testing.assert_array_equal(found.before.array, first.labels.array)
    assert without.before is None
    assert found.image == without.image and len(found.image) == 64
    assert found.report["refseg"] == __version__
    assert found.report["weights"] == {name: file.sha256 for name, file in version.manifest.files.items()}
    (region,) = found.report["images"][0]["regions"]
    similarities = [candidate["similarity"] for candidate in region["reflection"]["candidates"]]
    assert similarities[0] == pytest.approx(region["reflection"]["similarity_before"])
    assert region["reflection"]["similarity_after"] in similarities


def test_numbers_that_broke_down_travel_as_nothing():
    from RefSegLib.engine import _finite

    assert _finite({"score": -np.inf, "terms": {"ssim": np.nan, "x": 1.5}}) == {
        "score": None,
        "terms": {"ssim": None, "x": 1.5},
    }
