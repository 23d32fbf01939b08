"""Who calls, and whether they may."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

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


def caller(request: Request) -> Caller:
    """Whose token the request bears. Raises Unknown, or TooManyAttempts before it is even looked at."""
    service: Service = request.app.state.service
    address = request.client.host if request.client is not None else ""
    wait = service.failed.wait(address)
    if wait:
        raise TooManyAttempts(wait)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unknown("Sign in with a token. An administrator gives one: refseg users token NAME.")
    if service.token is not None and hmac.compare_digest(token.encode(), service.token.encode()):
        return Caller(CONSOLE, Role.ADMINISTRATOR)
    try:
        user = service.accounts.user_of(token)
    except NotAllowed as error:
        service.failed.failed(address)
        raise Unknown(str(error)) from error
    return Caller(user.name, user.role)


def may(action: Action) -> Callable[[Caller], Caller]:
    """A dependency: the caller, whose role allows the action. It raises Forbidden."""

    def check(who: Annotated[Caller, Depends(caller)]) -> Caller:
        if not allowed(who.role, action):
            raise Forbidden(f"As {who.role.value} you may not {action.value}. Ask an administrator.")
        return who

    return check
