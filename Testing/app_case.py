"""A person at the browser workspace with a model that has learnt a little of balls: everything takes seconds.

A test file asks for its fixtures by pytest_plugins = ("browser", "app_case")
"""

import pytest
import torch
from app_page import AppPage
from benchmarks.tiny_learning import SPEC, a_ball_case, an_image, arrays
from browser import wait_for_views
from InteractiveLearningLib.learner import Learner
from InteractiveLearningLib.learning import LearningSettings
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.replay_patients import ONE_IN
from InteractiveLearningLib.service.patients import patient_key
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.models.store import ModelStore
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import write_image
from running_app import RunningApp

GRID = Grid((20, 24, 22), (1.5, 1.0, 1.0), ((-1, 0, 0), (0, 0, -1), (0, -1, 0)), (-12.0, 34.0, 56.0))


@pytest.fixture(scope="module")
def app_store(tmp_path_factory):
    """A store with a model of balls that reflects and has learnt a little from four patients."""
    torch.manual_seed(2)
    home = tmp_path_factory.mktemp("app") / "store"
    store = ModelStore(home)
    eager = ReflectionSettings(margin=0.0).model_dump(mode="json")  # takes any other mask for better
    store.add(SPEC, arrays(build_segmenter(SPEC)), arrays(build_synthesizer(SPEC)), reflection=eager)
    store.activate(SPEC.name, "1")
    replay = ReplayStore(home)
    for n in range(4):
        replay.accept(a_ball_case(f"p{n}", n), f"{n:032x}")  # ids decide what is drawn: the same model each time
    replay.close()
    learner = Learner(home, SPEC.name, LearningSettings(iterations=40, rate=0.02, patience=200))
    learner.work()
    learner.close()
    return home


def a_patient_who_teaches(home):
    """The id of a patient who is drawn to teach the model, not to test it: one in five tests, by the site's own key."""
    return next(name for n in range(100) if int(patient_key(home, name := f"patient{n}")[:8], 16) % ONE_IN)


@pytest.fixture(scope="module")
def an_app(app_store, hurried_learners):
    """The workspace on that store."""
    app = RunningApp(app_store)
    with app.signed_in() as client:
        app.until_ready(client)
    yield app
    app.end()


@pytest.fixture
def at_work(an_app, a_page):
    """A person whose browser shows the workspace."""
    page = a_page(f"{an_app.url}/?token={an_app.token}")
    wait_for_views(page)
    return AppPage(page)


@pytest.fixture
def balls(tmp_path):
    """An image file of two balls, with its mask."""
    image, labels = an_image(7, GRID)
    path = tmp_path / "patient8.nrrd"
    write_image(image, path)
    return path, labels
