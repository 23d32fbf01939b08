"""Write the lists of files in the modules' CMakeLists.txt from what lies on the disk: just run it."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = ("RefSegSlicer", "InteractiveLearning")


def files(module: str) -> dict[str, list[str]]:
    """What a module's package is made of, by the name of the CMake list; paths relative to the module's folder."""
    folder = ROOT / module
    scripts = [p for p in folder.rglob("*.py") if "__pycache__" not in p.parts]
    resources = [p for p in (folder / "Resources").rglob("*") if p.is_file() and not p.name.startswith(".")]
    named = {"MODULE_PYTHON_SCRIPTS": scripts, "MODULE_PYTHON_RESOURCES": resources}
    return {name: sorted(p.relative_to(folder).as_posix() for p in found) for name, found in named.items()}


def listed(module: str) -> dict[str, list[str]]:
    """What CMakeLists.txt lists."""
    text = (ROOT / module / "CMakeLists.txt").read_text()
    return {name: re.search(_block(name), text).group(2).split() for name in files(module)}


def update(module: str) -> None:
    """Write the lists."""
    path = ROOT / module / "CMakeLists.txt"
    text = path.read_text()
    for name, found in files(module).items():
        lines = "".join(f"  {file}\n" for file in found)
        text = re.sub(_block(name), lambda match, lines=lines: f"{match.group(1)}{lines}{match.group(3)}", text)
    path.write_text(text)


def _block(name: str) -> str:
    return rf"(set\({name}\n)((?s:.*?))(  \))"


if __name__ == "__main__":
    changed = [module for module in MODULES if listed(module) != files(module)]
    for module in changed:
        update(module)
    sys.stdout.write(f"updated: {', '.join(changed) or 'nothing'}\n")
