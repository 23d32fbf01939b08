"""The commands about accepted cases: refseg replay ..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import Store
from RefSegLib.terminal import console
from rich.table import Column, Table

from InteractiveLearningLib.accepted import CaseInfo
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.replay_room import capacity, retire, set_capacity
from InteractiveLearningLib.replay_transfer import export_cases, import_cases
from InteractiveLearningLib.service.audit import CONSOLE, About, Action, AuditLog

replay = typer.Typer(no_args_is_help=True, help="Accepted cases: list, forget, retire, move; consent and capacity.")


@replay.command("list")
def list_cases(
    cases: Annotated[bool, typer.Option("--cases", help="Every case with its id, instead of counts.")] = False,
    store: Store = None,
) -> None:
    """What is in the store, by model, site and role."""
    with _opened(store) as place:
        found, limit = place.cases(), capacity(place)
    if cases:
        for c in found:
            consent = "consent" if c.consent else "no consent"
            typer.echo(
                "\t".join((c.id, c.model, c.site or "-", c.role, c.accepted_at, consent, ", ".join(c.structures)))
            )
        return
    groups: dict[tuple[str, str, str], list[CaseInfo]] = defaultdict(list)
    for c in found:
        groups[c.model, c.site or "-", c.role].append(c)
    role = Column("role", no_wrap=True, min_width=10)
    table = Table("model", "site", role, "cases", "patients", "without consent", "from", "to")
    for key, group in sorted(groups.items()):
        counts = (len(group), len({c.patient for c in group}), sum(not c.consent for c in group))
        times = (group[0].accepted_at[:10], group[-1].accepted_at[:10])
        table.add_row(*key, *(str(n) for n in counts), *times)
    console.print(table)
    if limit is not None:
        console.print(f"At most {limit} training cases of a model are kept.")


@replay.command("damaged")
def damaged(store: Store = None) -> None:
    """Read every case; exit code 2 if one is damaged."""
    with _opened(store) as place:
        found = place.damaged()
        count = len(place.cases())
    for sentence in found.values():
        typer.echo(sentence)
    if found:
        raise RefSegError(f"{len(found)} of {count} cases are damaged.")
    console.print(f"All {count} cases are whole.")


@replay.command("forget")
def forget(
    patient: Annotated[str, typer.Option("--patient", help="The id by which the patient was accepted.")],
    store: Store = None,
) -> None:
    """Remove every trace of a patient, and name the versions that had learnt from them."""
    with _opened(store) as place:
        cases, versions = place.about(patient)
        # Before it is done, and by the cases alone: the log keeps what it says for ever.
        audit = AuditLog(place.home)
        for case in cases or [None]:
            audit.append(CONSOLE, Action.FORGET, About(case=case))
        audit.close()
        console.print(f"Cases of the patient, with those retired before: {len(cases)}.")
        if versions:
            console.print("Versions that had learnt from them, or grew out of such a version, or are damaged:")
            for version in versions:
                typer.echo(version)
        else:
            console.print("No version had learnt from them.")
        place.forget(patient)
    console.print("Forgotten. Exports, backups and sessions are files of their own.")


@replay.command("consent")
def consent(
    case: Annotated[str, typer.Argument(help="Id of the case, see refseg replay list --cases.")],
    given: Annotated[bool, typer.Option("--yes/--no", help="May it be learnt from and validated with?")],
    store: Store = None,
) -> None:
    """Give or withdraw the consent of a case: without it nobody learns from it or validates with it."""
    with _opened(store) as place:
        if case not in {c.id for c in place.cases()}:
            raise BadInput(f"There is no case '{case}'. `refseg replay list --cases` shows all.")
        audit = AuditLog(place.home)
        audit.append(CONSOLE, Action.CONSENT if given else Action.WITHDRAW_CONSENT, About(case=case))
        audit.close()
        place.set_consent(case, given)
    console.print("May be learnt from." if given else "Neither learnt from nor validated with from now on.")


@replay.command("retire")
def retire_cases(
    days: Annotated[float, typer.Option("--days", help="Remove training cases accepted longer ago.")],
    store: Store = None,
) -> None:
    """Remove old training cases. Validation cases stay: the validation set is never redrawn."""
    with _opened(store) as place:
        done = retire(place, days)
    console.print(f"Training cases removed: {len(done.cases)}. Validation cases as old that stay: {done.kept}.")


@replay.command("export")
def export(file: Path, store: Store = None) -> None:
    """Write all cases to one file, for another store with the same keys of patients."""
    with _opened(store) as place:
        count = export_cases(place, file)
    console.print(f"{count} cases are in '{file}'.", highlight=False, soft_wrap=True)


@replay.command("import")
def import_file(file: Path, store: Store = None) -> None:
    """Add the cases of an exported file that are not here yet."""
    with _opened(store) as place:
        done = import_cases(place, file)
    console.print(f"Cases added: {done.added}. Here already: {done.known}.")
    if done.roles_kept:
        console.print(f"Patients who stay on the side of the validation drawn here: {done.roles_kept}.")


@replay.command("capacity")
def set_capacity_of_store(
    cases: Annotated[int | None, typer.Argument(min=1, help="How many training cases of a model are kept.")] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Keep all.")] = False,
    store: Store = None,
) -> None:
    """Show or set how many training cases of a model are kept; which, is balanced over sites and structures."""
    if cases is not None and unlimited:
        raise BadInput("Say either how many, or --unlimited.")
    with _opened(store) as place:
        if cases is not None or unlimited:
            console.print(f"Cases removed: {set_capacity(place, cases)}.")
        limit = capacity(place)
    console.print("All cases are kept." if limit is None else f"At most {limit} training cases of a model are kept.")


@contextmanager
def _opened(store: Path | None) -> Iterator[ReplayStore]:
    place = ReplayStore(ModelStore(store).home)
    try:
        yield place
    finally:
        place.close()
