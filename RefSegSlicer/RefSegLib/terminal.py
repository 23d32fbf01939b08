"""How commands speak: a progress bar for people, JSON lines for programs, one clear line for errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.progress import Progress

console = Console()
errors = Console(stderr=True)


@contextmanager
def shown_progress(what: str, *, as_json: bool = False, resumes: bool = False) -> Iterator[Progress]:
    """A Progress that draws a bar on the terminal, or writes {"fraction", "message"} lines to standard output.

    Ctrl+C raises Cancelled, whose sentence says whether the command goes on (`resumes`): typer ends without a word.
    """
    try:
        with _lines() if as_json else _bar(what) as report:
            yield Progress(report)
    except KeyboardInterrupt:
        raise Cancelled(f"Stopped.{' The same command goes on where it was.' if resumes else ''}") from None


@contextmanager
def _lines() -> Iterator[Callable[[float, str], None]]:
    def report(fraction: float, message: str) -> None:
        sys.stdout.write(json.dumps({"fraction": round(fraction, 4), "message": message}) + "\n")
        sys.stdout.flush()

    yield report


@contextmanager
def _bar(what: str) -> Iterator[Callable[[float, str], None]]:
    columns = (TextColumn("{task.fields[what]}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("", total=1.0, what=what)
        shown = 0.0

        def draw(fraction: float, message: str) -> None:
            nonlocal shown
            if time.monotonic() - shown > 0.1 or fraction >= 1:  # tiles come faster than a terminal can draw
                shown = time.monotonic()
                bar.update(task, completed=fraction, description=message)

        yield draw


def write_report(report: dict[str, Any], file: Path | None) -> None:
    """Write a report as JSON, whole or not at all. Raises BadInput if the place cannot be written to."""
    if file is None:
        return
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
        partial.replace(file)
    except OSError as error:
        msg = f"The report '{file}' could not be written: {error.strerror}. Choose another place or free some room."
        raise BadInput(msg) from error
