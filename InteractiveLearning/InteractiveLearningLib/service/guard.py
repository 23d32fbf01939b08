"""Who calls, and whether they may."""

from __future__ import annotations

import hmac
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from InteractiveLearningLib.service.accounts import NotAllowed, Role, allowed
from InteractiveLearningLib.service.audit import CONSOLE, Action
from InteractiveLearningLib.service.service import Service


@dataclass(frozen=True)
class Caller:
    """name: of the account, or of who sits at this machine."""

    name: str
    role: Role


class Unknown(NotAllowed):
    """No token, or one that opens nothing."""


class Forbidden(NotAllowed):
    """The token is right, the role is not."""


class TooManyAttempts(NotAllowed):
    """This address has failed too often; wait: seconds until it may try again."""

    def __init__(self, wait: float) -> None:
        self.wait = math.ceil(wait)
        super().__init__(f"Too many wrong tokens came from this address. Try again in {self.wait} seconds.")


def signed_in(service: Service, scope: Mapping[str, Any]) -> Caller:
    """Whose token a request bears, by its ASGI scope. Raises Unknown, or TooManyAttempts before it is looked at."""
    said = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = (said[0] if len(said) == 1 else b"").partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token:
        raise Unknown("Sign in with a token. An administrator gives one: refseg users token NAME.")
    # Looked at even if this address has failed too often: it is 256 random bits, no user's, and other programs of
    # this machine must not be able to keep its owner out.
    if service.token is not None and hmac.compare_digest(token, service.token.encode()):
        return Caller(CONSOLE, Role.ADMINISTRATOR)
    address = (scope.get("client") or ("",))[0]
    wait = service.failed.wait(address)
    if wait:
        raise TooManyAttempts(wait)
    try:
        user = service.accounts.user_of(token.decode("latin-1"))
    except NotAllowed as error:
        service.failed.failed(address)
        raise Unknown(str(error)) from error
    return Caller(user.name, user.role)


async def caller(request: Request) -> Caller:
    """Who limits.py has let in. Raises Unknown for a request that did not come through there."""
    who = getattr(request.state, "caller", None)
    if who is None:
        raise Unknown("Sign in with a token.")
    return who


def may(action: Action) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency: the caller, whose role allows the action. It raises Forbidden."""

    async def check(who: Annotated[Caller, Depends(caller)]) -> Caller:
        if not allowed(who.role, action):
            raise Forbidden(f"As {who.role.value} you may not {action.value}. Ask an administrator.")
        return who

    return check
