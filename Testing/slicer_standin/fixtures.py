"""Fixtures for tests of the Slicer modules. A test file asks for them by

pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")
"""

import sys

import pytest
import slicer

from slicer_standin import application

application.start()


@pytest.fixture
def an_empty_scene():
    """The scene of the application, empty before and after."""
    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def no_swallowed_exceptions():
    """Qt slots and VTK observers print their exceptions and go on; here they fail the test."""
    raised, hook = [], sys.excepthook
    sys.excepthook = lambda kind, value, trace: raised.append(value)
    yield raised
    sys.excepthook = hook
    if raised:
        raise raised[0]
