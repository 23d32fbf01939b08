"""The command `refseg models review`."""

from __future__ import annotations

from typing import Annotated

import typer
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import Store
from RefSegLib.terminal import console

from InteractiveLearningLib.reviews import review
from InteractiveLearningLib.service.audit import CONSOLE, About, Action, AuditLog


def review_command(
    model: Annotated[str, typer.Argument(help="NAME@VERSION that made the mask.")],
    accepted: Annotated[bool, typer.Option("--accept/--reject", help="Whether the mask is good enough.")],
    case: Annotated[
        str | None, typer.Option("--case", help="Id of the case; a second review replaces its first.")
    ] = None,
    store: Store = None,
) -> None:
    """Accept or reject what a version made; one that is rejected again and again is taken back."""
    name, _, version = model.partition("@")
    if not version:
        raise BadInput(f"Say which version, for example {name}@1.")
    place = ModelStore(store)
    place.load(name, version)
    audit = AuditLog(place.home)
    audit.append(CONSOLE, Action.ACCEPT if accepted else Action.REJECT, About(case=case, version=model))
    found = review(place, place.home, name, version, accepted, case, CONSOLE)
    console.print(found.reason or f"Noted. {name}@{found.active} is active.", soft_wrap=True)
