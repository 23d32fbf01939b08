"""Descriptions of models that others wrote."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from RefSegLib.errors import BadInput
from RefSegLib.models.spec import Label, SegmenterSpec


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises BadInput, naming the file."""
    try:
        value = json.loads(file.read_text())
    except OSError as error:
        raise BadInput(f"'{file}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BadInput(f"'{file}' is not JSON, or it is damaged: {error}.") from error
    if not isinstance(value, dict):
        raise BadInput(f"'{file}' should hold one JSON object.")
    return value


def read_spec(file: Path) -> SegmenterSpec:
    """A model description. Raises BadInput, saying what is wrong with it."""
    try:
        return SegmenterSpec.model_validate_json(file.read_text())
    except OSError as error:
        raise BadInput(f"The model description '{file}' cannot be read: {error.strerror}.") from error
    except ValueError as error:  # pydantic says which field and why
        raise BadInput(f"The model description '{file}' is not valid. {error}") from error


def results_folders(path: Path) -> list[Path]:
    """The trainer folders (with plans.json and folds) at `path` or up to two folders below; `path` may be a fold."""
    if path.name.startswith("fold_") and (path.parent / "plans.json").is_file():
        path = path.parent
    found = [path / "plans.json", *path.glob("*/plans.json"), *path.glob("*/*/plans.json")]
    return sorted(file.parent for file in found if file.is_file())


def labels_named(names: Sequence[str]) -> tuple[Label, ...]:
    """Labels 1, 2, ... of these names, in colors that are told apart: hues by the golden ratio."""
    colors = [colorsys.hsv_to_rgb(n * 0.618034 % 1, 0.65, 0.9) for n in range(len(names))]
    return tuple(
        Label(value=n + 1, name=name, color=tuple(round(part, 3) for part in color))
        for n, (name, color) in enumerate(zip(names, colors, strict=True))
    )
