"""Users, their roles and their tokens.

    home/service/accounts.json    whole or not there (durable.py); a lock lets processes change it in turns

A token is ID.SECRET: a public id to find it by, and 32 random bytes. Only a hash of it is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError
from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError

from InteractiveLearningLib.service.audit import CONSOLE, GATE, USER_NAME, About, Action, AuditLog

LAST_USE_EVERY = timedelta(minutes=1)  # the last use is noted no finer, so that a request is no write
MOST_ADDRESSES = 100_000
_LONGEST_TOKEN = 200


class Role(Enum):
    """What somebody is here."""

    ANNOTATOR = "annotator"
    REVIEWER = "reviewer"
    ADMINISTRATOR = "administrator"


_ANNOTATOR = frozenset({Action.SEGMENT, Action.ANNOTATE})
# A model learns from what is accepted, so a second person accepts. Rolling back only returns to what was in use.
_REVIEWER = _ANNOTATOR | {Action.ACCEPT, Action.REJECT, Action.ROLL_BACK, Action.CONSENT, Action.WITHDRAW_CONSENT}
_ALLOWED = {Role.ANNOTATOR: _ANNOTATOR, Role.REVIEWER: _REVIEWER, Role.ADMINISTRATOR: frozenset(Action)}


def allowed(role: Role, action: Action) -> bool:
    """Whether somebody of this role may do this."""
    return action in _ALLOWED[role]


class NotAllowed(RefSegError):
    """A token that opens nothing, or a user who may not do this; the sentence says which."""


class Token(BaseModel):
    """What is kept of a token. Times are UTC."""

    id: str
    digest: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    used: datetime | None = None


class User(BaseModel):
    """A user; tokens, oldest first. Revoked users stay, so that the names in the audit log keep their meaning."""

    name: str
    role: Role
    created: datetime
    revoked: datetime | None = None
    tokens: list[Token] = []


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a newer file is refused instead of losing what it says
    users: dict[str, User] = {}


class Accounts:
    """The accounts under `home`. Safe with many threads and processes; a change counts at once for all of them.

    Every change has its entry in the audit log before it is made; `by` is who makes it.
    now: the clock, for tests. All methods raise RefSegError if the file is damaged or cannot be written.
    """

    def __init__(self, home: str | Path, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self.path = Path(home) / "service" / "accounts.json"
        self._audit = AuditLog(home)
        self._now = now

    def users(self) -> list[User]:
        """All users, revoked ones too, by name."""
        return sorted(self._read().users.values(), key=lambda user: user.name)

    def add(self, name: str, role: Role, by: str = CONSOLE) -> None:
        """A new user. Raises BadInput if the name cannot be used or was ever in use."""
        if not USER_NAME.fullmatch(name) or name in (CONSOLE, GATE):
            raise BadInput(
                f"'{name}' cannot be the name of a user: small letters, digits, '.', '_' and '-', beginning with a "
                f"letter, at most 32, and not '{CONSOLE}' or '{GATE}'."
            )
        with self._changing() as file:
            if name in file.users:
                raise BadInput(f"There is or was a user '{name}'. Choose another name: the audit log knows this one.")
            file.users[name] = User(name=name, role=role, created=self._now())
            self._audit.append(by, Action.ADD_USER, About(user=name))

    def revoke(self, name: str, by: str = CONSOLE) -> None:
        """End a user's access with all tokens, at once and for good. Raises BadInput if there is no such user."""
        with self._changing() as file:
            user = _active(file, name)
            user.revoked = self._now()
            self._audit.append(by, Action.REVOKE_USER, About(user=name))

    def give_token(self, name: str, lasts: timedelta | None = None, by: str = CONSOLE) -> str:
        """A new token for a user. It is not kept and cannot be shown again. Raises BadInput if there is no such user.

        lasts: how long it can be used; without end if not given.
        """
        if lasts is not None and lasts <= timedelta(0):
            raise BadInput("A token must last longer than no time at all.")
        identifier = secrets.token_hex(6)
        token = f"{identifier}.{secrets.token_urlsafe(32)}"
        with self._changing() as file:
            user, now = _active(file, name), self._now()
            try:
                expires = None if lasts is None else now + lasts
            except OverflowError as error:
                raise BadInput("A token cannot last that long. Give fewer days, or none for no end.") from error
            user.tokens.append(Token(id=identifier, digest=_digest(token), created=now, expires=expires))
            self._audit.append(by, Action.GIVE_TOKEN, About(user=name, token=identifier))
        return token

    def revoke_token(self, identifier: str, by: str = CONSOLE) -> None:
        """End one token by its public id, at once and for good. Raises BadInput if there is no such token in use."""
        with self._changing() as file:
            user, token = _find(file, identifier)
            if user is None or token is None or token.revoked is not None:
                raise BadInput("There is no token in use with this id. `refseg users list` shows the ids.")
            token.revoked = self._now()
            self._audit.append(by, Action.REVOKE_TOKEN, About(user=user.name, token=token.id))

    def user_of(self, token: str) -> User:
        """Whose token this is. Raises NotAllowed if it opens nothing (any more)."""
        identifier = token.partition(".")[0]
        user, kept = _find(self._read(), identifier)
        # One comparison in constant time whether the id is known or not; the id is no secret.
        same = hmac.compare_digest(_digest(token[:_LONGEST_TOKEN]), "0" * 64 if kept is None else kept.digest)
        if user is None or kept is None or not same:
            raise NotAllowed("This token is not known here. Ask an administrator for a new one.")
        now = self._now()
        if user.revoked is not None or kept.revoked is not None:
            raise NotAllowed("This token was revoked. Ask an administrator for a new one.")
        if kept.expires is not None and kept.expires <= now:
            raise NotAllowed("This token has expired. Ask an administrator for a new one.")
        if kept.used is None or now - kept.used >= LAST_USE_EVERY:
            self._note_use(identifier, now)
        return user

    def check(self, token: str, action: Action) -> User:
        """Whose token this is. Raises NotAllowed if it opens nothing or its user may not do this."""
        user = self.user_of(token)
        if not allowed(user.role, action):
            raise NotAllowed(f"As {user.role.value} you may not {action.value}. Ask an administrator.")
        return user

    def _note_use(self, identifier: str, now: datetime) -> None:
        with self._changing() as file:
            _, token = _find(file, identifier)
            if token is not None:
                token.used = now

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise RefSegError(f"The accounts {self.path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            raise RefSegError(
                f"The accounts {self.path} are damaged or were written by a newer RefSeg. Update this one, or restore "
                "the file from a backup."
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """The accounts, written when the block ends; nothing is written if it raises."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(f"{self.path}.lock"):
                file = self._read()
                yield file
                write_durably(self.path, file.model_dump_json(indent=1).encode(), mode=0o600)
        except OSError as error:
            raise RefSegError(
                f"The accounts {self.path} could not be written, nothing was changed: {error.strerror}."
            ) from error


class FailedAttempts:
    """Failed tokens per address in a sliding window: at most `limit` within `seconds`, then none is looked at.

    A token that is right does not clear the count, or whoever has one could go on guessing at others.
    """

    def __init__(self, limit: int = 10, seconds: float = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.seconds = limit, seconds
        self._clock = clock
        self._times: dict[str, deque[float]] = {}  # the address that failed last comes last
        self._lock = threading.Lock()

    def failed(self, address: str) -> None:
        """Note a failed attempt."""
        with self._lock:
            now = self._clock()
            times = self._times.pop(address, deque(maxlen=self.limit))
            times.append(now)
            self._times[address] = times
            while len(self._times) > MOST_ADDRESSES or next(iter(self._times.values()))[-1] <= now - self.seconds:
                del self._times[next(iter(self._times))]

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        with self._lock:
            times = self._times.get(address, ())
            return max(0.0, times[0] + self.seconds - self._clock()) if len(times) == self.limit else 0.0


def _digest(token: str) -> str:
    # Plain SHA-256 on purpose. Slow hashes such as scrypt protect secrets that people choose and that can be guessed;
    # nobody guesses 256 random bits, and a slow hash would make every request slow. The random public id in front of
    # the secret is the salt.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _active(file: _File, name: str) -> User:
    user = file.users.get(name)
    if user is None or user.revoked is not None:
        raise BadInput(f"There is no user '{name}' with access. `refseg users list` shows all.")
    return user


def _find(file: _File, identifier: str) -> tuple[User, Token] | tuple[None, None]:
    for user in file.users.values():
        for token in user.tokens:
            if token.id == identifier:
                return user, token
    return None, None
