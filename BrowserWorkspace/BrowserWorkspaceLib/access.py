"""Who may use the workspace: tokens open it once, cookies of this run keep it open.

Users and tokens are those of the service (service/accounts.py). Where there are none, one token made for this run opens
the workspace of whoever started it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from InteractiveLearningLib.service.accounts import Accounts, FailedAttempts, NotAllowed
from InteractiveLearningLib.service.audit import CONSOLE
from InteractiveLearningLib.service.guard import TooManyAttempts

# A browser that was not there for a working day is signed out.
FORGOTTEN_SECONDS = 12 * 3600.0
# A token that was revoked closes what it had opened within this.
CHECK_SECONDS = 5.0


@dataclass
class Visitor:
    """Somebody who has signed in. token: of his account, None for that of this run; times: of the monotonic clock."""

    user: str
    token: str | None
    seen: float = field(default_factory=time.monotonic)
    checked: float = field(default_factory=time.monotonic)


class Access:
    """Sign in, recognize, sign out. token: the one made for this run, None where the store has users.

    Nothing of it is kept on disk: a cookie of another run opens nothing. Methods read and sometimes write a small file.
    """

    def __init__(self, home: Path) -> None:
        self._accounts, self._failed = Accounts(home), FailedAttempts()
        self._visitors: dict[bytes, Visitor] = {}
        known = any(user.revoked is None for user in self._accounts.users())
        self.token = None if known else secrets.token_urlsafe(32)

    def sign_in(self, token: str, address: str) -> str:
        """The cookie that a token is worth. address: who says so, as wrong tokens are counted by address.

        Raises NotAllowed for a token that opens nothing, and after too many wrong ones.
        """
        if self.token is not None and hmac.compare_digest(token.encode(errors="replace"), self.token.encode()):
            return self._let_in(Visitor(CONSOLE, None))
        wait = self._failed.wait(address)
        if wait:
            raise TooManyAttempts(wait)
        try:
            user = self._accounts.user_of(token)
        except NotAllowed:
            self._failed.failed(address)
            raise
        return self._let_in(Visitor(user.name, token))

    def visitor(self, cookie: str) -> Visitor | None:
        """Who bears this cookie; None if it opens nothing (any more)."""
        key = _digest(cookie)
        found, now = self._visitors.get(key), time.monotonic()
        if found is None:
            return None
        if now - found.checked > CHECK_SECONDS:
            found.checked = now
            if now - found.seen > FORGOTTEN_SECONDS or not self.holds(found.token, found.user):
                self._visitors.pop(key, None)
                return None
        found.seen = now
        return found

    def sign_out(self, cookie: str) -> None:
        """This cookie opens nothing any more."""
        self._visitors.pop(_digest(cookie), None)

    def holds(self, token: str | None, user: str) -> bool:
        """Whether this is (still) a token of that user; None is that of this run, which holds as long as it runs."""
        try:
            return token is None or self._accounts.user_of(token).name == user
        except NotAllowed:
            return False

    def _let_in(self, visitor: Visitor) -> str:
        now = time.monotonic()
        for key in [key for key, found in self._visitors.items() if now - found.seen > FORGOTTEN_SECONDS]:
            del self._visitors[key]
        cookie = secrets.token_urlsafe(32)
        self._visitors[_digest(cookie)] = visitor
        return cookie


def _digest(cookie: str) -> bytes:
    # Found by its hash: how long looking takes tells nothing about the cookies that there are.
    return hashlib.sha256(cookie.encode(errors="replace")).digest()
