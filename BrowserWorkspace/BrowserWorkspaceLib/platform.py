"""What the modules' own classes expect of the package `slicer`, and an application of Slicer's core does not set."""

import slicer


def prepare(scene) -> None:
    """Make a scene the one of this process. Whatever asks for Slicer's main scene gets it."""
    slicer.mrmlScene = scene
