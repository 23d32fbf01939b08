"""Where shipped models, templates and terminology are, installed or in a source checkout."""

import importlib.util
from pathlib import Path

from RefSegLib.errors import RefSegError


def resource(name: str) -> Path:
    """The path of a shipped file or folder, such as "templates/mni152_2mm.nii.gz". Raises RefSegError if missing."""
    package = importlib.util.find_spec("RefSegResources")
    # Slicer runs a source checkout straight from its folders, without an installed distribution.
    folder = Path(package.origin).parent if package and package.origin else Path(__file__).parents[2] / "Resources"
    path = folder / name
    if not path.exists():
        raise RefSegError(f"The shipped file '{name}' is missing from {folder}. Reinstall the extension.")
    return path
