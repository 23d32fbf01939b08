"""What the modules and the engine need in Slicer's own Python, and what of it is missing. Imports none of it."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

# For the PyTorch extension; the engine's other packages are in ENGINE_FILE.
TORCH = ">=2.6"
ENGINE_FILE = Path(__file__).parents[1] / "Resources" / "RefSegEngineRequirements.txt"
# Slicer's own: what is installed beside them must leave them as they are. PyTorch is the extension's.
KEPT = ("numpy", "scipy", "SimpleITK", "requests", "vtk", "pydicom", "torch")


def missingPackages(requirementsFile) -> list[str]:
    """The lines of a requirements file that the running Python does not satisfy."""
    lines = [line.strip() for line in Path(requirementsFile).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#") and not _satisfied(line)]


def torchMissing() -> bool:
    """Whether Slicer's own Python lacks PyTorch, or has one that is too old."""
    return not _satisfied(f"torch{TORCH}")


def torchExtension() -> bool:
    """Whether the PyTorch extension is there, by which alone PyTorch is installed."""
    return importlib.util.find_spec("PyTorchUtils") is not None


def inUse(requirements) -> list[str]:
    """Names of the packages among them that are there in other versions and loaded: those stay until a restart."""
    found = []
    for name in (_parsed(line).name for line in requirements):
        try:
            files = importlib.metadata.distribution(name).files or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        if {file.parts[0].removesuffix(".py") for file in files} & sys.modules.keys():
            found.append(name)
    return sorted(found)


def pipArguments(requirements, constraintsFile, folder="") -> list[str]:
    """What pip is told to install, from a folder of wheels alone if one is given.

    constraintsFile: is written; keeps pip from replacing what is Slicer's own.
    """
    kept = []
    for name in KEPT:
        try:
            kept.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    Path(constraintsFile).parent.mkdir(parents=True, exist_ok=True)
    Path(constraintsFile).write_text("\n".join(kept) + "\n")
    options = ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "-c", str(constraintsFile)]
    return [*options, *(["--no-index", "--find-links", folder] if folder else []), *requirements]


def _parsed(requirement):
    from packaging.requirements import Requirement  # comes with pip, so it is in every Slicer

    return Requirement(requirement)


def _satisfied(requirement: str) -> bool:
    wanted = _parsed(requirement)
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False
