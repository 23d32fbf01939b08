"""The addresses of the worklist: its cases, one of them to work on, its image, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from InteractiveLearningLib.service.accounts import allowed
from InteractiveLearningLib.service.audit import About, Action
from InteractiveLearningLib.service.guard import Forbidden, caller
from InteractiveLearningLib.service.jobs import Missing
from InteractiveLearningLib.service.routes import ID, Annotator, The
from InteractiveLearningLib.service.service import Service
from InteractiveLearningLib.service.wire import PIECE
from InteractiveLearningLib.service.worklist import LEASE, ServedWorklist, StateMessage

router = APIRouter(prefix="/v1", dependencies=[Depends(caller)])
# What it takes to decide about a case; whoever may annotate may also say that somebody else should.
_NEEDED = {"accepted": Action.ACCEPT, "rejected": Action.REJECT}


def _worklist(service: Service) -> ServedWorklist:
    if service.worklist is None:
        raise Missing("This server has no worklist. Its administrator gives it one: refseg serve --worklist DIR.")
    return service.worklist


@router.get("/worklist")
def worklist(service: The, who: Annotator) -> dict[str, Any]:
    """All cases: id, name, state, by whom, whether somebody (held) or the caller (mine) has it now."""
    return {"cases": [vars(case) for case in _worklist(service).cases(who.name)]}


@router.get("/worklist/{identifier}/volume")
def worklist_volume(identifier: ID, service: The, who: Annotator) -> StreamingResponse:
    """The image of a case that the caller has taken: a line of JSON (wire.VolumeMessage), then its zlib stream."""
    listed = _worklist(service)
    listed.check(who.name, identifier)
    service.audit.append(who.name, Action.ANNOTATE, About(case=identifier))
    with service.unpacking:
        about, stream = listed.packed(identifier, who.name, service.uploads)
    head = about.model_dump_json().encode() + b"\n"
    return StreamingResponse(
        _pieces(head, stream),
        media_type="application/octet-stream",
        headers={"Content-Length": str(len(head) + about.packed)},
    )


@router.post("/worklist/{identifier}")
def worklist_state(identifier: ID, about: StateMessage, service: The, who: Annotator) -> dict[str, Any]:
    """Take a case (and say for how many seconds it is kept, and whose image it is), or say what became of it."""
    listed = _worklist(service)
    if about.state == "take":
        case, new = listed.take(who.name, identifier)
        if new:
            service.audit.append(who.name, Action.ANNOTATE, About(case=identifier))
        return vars(case) | {"lease": LEASE, "patient": listed.patient(identifier)}
    needed = _NEEDED.get(about.state)
    if needed is not None and not allowed(who.role, needed):
        raise Forbidden(f"As {who.role.value} you may not {needed.value}. Skip the case, so that a reviewer sees it.")
    listed.check(who.name, identifier)
    if needed is not None:
        service.audit.append(who.name, needed, About(case=identifier))
    return vars(listed.decide(who.name, identifier, about.state))


def _pieces(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        yield head
        while piece := stream.read(PIECE):
            yield piece
