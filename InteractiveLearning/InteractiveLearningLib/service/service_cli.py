"""The commands about who may use the service and what they did: refseg users ..., refseg audit ..."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import Store
from RefSegLib.terminal import console, errors
from rich.table import Column, Table

from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.audit import AuditLog

users = typer.Typer(no_args_is_help=True, help="Add, list and revoke users; give them tokens.")
audit = typer.Typer(no_args_is_help=True, help="Show and verify who did what.")


@users.command("add")
def add_user(
    name: str,
    role: Annotated[Role, typer.Option("--role", help="What the user may do.")],
    store: Store = None,
) -> None:
    """A new user, who needs a token next."""
    _accounts(store).add(name, role)
    console.print(f"{name} is {role.value}. A token: refseg users token {name}")


@users.command("list")
def list_users(store: Store = None) -> None:
    """All users with their tokens."""
    table = Table(
        "user",
        "role",
        "state",
        Column("token", no_wrap=True, min_width=12),
        "given",
        "expires",
        "last used",
        "token's state",
    )
    for user in _accounts(store).users():
        state = "revoked" if user.revoked else "active"
        for number, token in enumerate(user.tokens):
            times = (f"{t:%Y-%m-%d %H:%M}" if t else "-" for t in (token.created, token.expires, token.used))
            first = (user.name, user.role.value, state) if number == 0 else ("", "", "")
            table.add_row(*first, token.id, *times, "revoked" if token.revoked else "")
        if not user.tokens:
            table.add_row(user.name, user.role.value, state)
    console.print(table)


@users.command("token")
def give_token(
    name: str,
    days: Annotated[float | None, typer.Option("--days", help="How long it can be used (default: no end).")] = None,
    store: Store = None,
) -> None:
    """Print a new token: nothing else is on standard output, and it cannot be shown again."""
    try:
        lasts = None if days is None else timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise BadInput("A token cannot last that long. Give fewer days, or none for no end.") from error
    typer.echo(_accounts(store).give_token(name, lasts))
    errors.print("Keep it now: it cannot be shown again.")


@users.command("revoke")
def revoke(
    name: Annotated[str | None, typer.Argument(help="The user, who loses all tokens.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="Only the token with this id.")] = None,
    store: Store = None,
) -> None:
    """End the access of a user, or a single token, at once and for good."""
    if (name is None) == (token is None):
        raise BadInput("Say either which user or, with --token, which token is to be revoked.")
    if token is not None:
        _accounts(store).revoke_token(token)
        console.print(f"The token {token} is revoked.")
    else:
        _accounts(store).revoke(str(name))
        console.print(f"{name} has no access any more.")


@audit.command("show")
def show_audit(
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only this many.")] = None, store: Store = None
) -> None:
    """The entries, oldest first: number, time (UTC), who, what, about what."""
    entries = list(_audit(store).entries())
    for entry in entries if last is None else entries[-last:]:
        about = " ".join(f"{name}={value}" for name, value in vars(entry.about).items() if value is not None)
        time = entry.time.isoformat(timespec="seconds")
        typer.echo("\t".join((str(entry.number), time, entry.who, entry.action.value, about)))


@audit.command("verify")
def verify_audit(
    head: Annotated[str | None, typer.Option("--head", help="What `refseg audit head` printed before.")] = None,
    store: Store = None,
) -> None:
    """Check that no entry was changed, removed, added or exchanged."""
    count = _audit(store).verify(head)
    console.print(f"The audit log is whole: {count} entries.")
    if head is None:
        errors.print("Whether the newest were cut off, only --head can tell.", highlight=False)


@audit.command("head")
def head_of_audit(store: Store = None) -> None:
    """Print the number and hash of the newest entry, to be kept elsewhere for `refseg audit verify --head`."""
    typer.echo(_audit(store).head())


def _accounts(store: Store) -> Accounts:
    return Accounts(ModelStore(store).home)


def _audit(store: Store) -> AuditLog:
    return AuditLog(ModelStore(store).home)
