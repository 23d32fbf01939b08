"""slicer.packaging (Slicer 5.12): checks what is installed; installs nothing, as Slicer itself in testing mode."""

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement

asked = []


def load_requirements(path):
    lines = (line.strip() for line in Path(path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(requirements):
    one = isinstance(requirements, (str, Requirement))
    return all(_there(Requirement(str(r))) for r in ([requirements] if one else requirements))


def _there(requirement):
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(requirements, requester=None, **options):
    asked.extend(str(r) for r in requirements if not pip_check(r))
