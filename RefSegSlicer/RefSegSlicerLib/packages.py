"""Installing, after a question, what the modules' Python lacks.

Works in Slicer 5.10 (slicer.util.pip_install only) and with slicer.packaging (Slicer 5.12).
"""

import importlib.metadata
from pathlib import Path

import slicer

from RefSegSlicerLib.settings import PYTHON_KEY, STORE_KEY, environment, python, store  # noqa: F401


def missingPackages(requirementsFile) -> list[str]:
    """The lines of a requirements file that the running Python does not satisfy. Imports none of the packages."""
    lines = [line.strip() for line in Path(requirementsFile).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#") and not _installed(line)]


def installPackages(requirementsFile, confirm=None) -> bool:
    """Install what is missing, once the user has agreed; returns False if they did not.

    confirm: called with the question where slicer.packaging, which asks by itself, is not there.
    """
    missing = missingPackages(requirementsFile)
    if not missing:
        return True
    try:
        from slicer import packaging
    except ImportError:  # Slicer 5.10
        question = f"RefSeg needs to install: {', '.join(missing)}. This takes a few minutes. Install now?"
        if not (confirm or slicer.util.confirmOkCancelDisplay)(question):
            return False
        slicer.util.pip_install(" ".join(f'"{line}"' for line in missing))
        return True
    try:
        packaging.pip_ensure(packaging.load_requirements(requirementsFile), requester="RefSeg")
    except RuntimeError:  # the user declined
        return False
    return True


def _installed(requirement: str) -> bool:
    from packaging.requirements import Requirement  # comes with pip, so it is in every Slicer

    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False
