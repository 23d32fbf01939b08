"""The addresses of the service (version 1 of its API) and who may use them."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from RefSegLib.errors import BadInput

from InteractiveLearningLib.accepting import accepted_case
from InteractiveLearningLib.guidance import Suggestion
from InteractiveLearningLib.listing import list_models
from InteractiveLearningLib.prompts import from_dict, to_dict
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.service.audit import About, Action
from InteractiveLearningLib.service.guard import Caller, caller, may
from InteractiveLearningLib.service.jobs import Missing
from InteractiveLearningLib.service.service import Service
from InteractiveLearningLib.service.sessions import LEASE

# One token opens all of it; which role may do what is asked of each.
router = APIRouter(prefix="/v1", dependencies=[Depends(caller)])

ID = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
VolumeID = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Label = Annotated[int, Query(ge=1, le=65535)]
Segmenter = Annotated[Caller, Depends(may(Action.SEGMENT))]
Annotator = Annotated[Caller, Depends(may(Action.ANNOTATE))]


def the_service(request: Request) -> Service:
    """The service that this application is the face of."""
    return request.app.state.service


The = Annotated[Service, Depends(the_service)]


def _received(state: tuple[int, bool]) -> dict[str, Any]:
    return {"received": state[0], "complete": state[1], "chunk": wire.CHUNK}


@router.post("/volumes")
def announce_volume(about: wire.VolumeMessage, service: The, who: Segmenter) -> dict[str, Any]:
    """A volume is about to be sent, unless it is here already."""
    return _received(service.uploads.begin(who.name, about))


@router.put("/volumes/{identifier}")
async def send_chunk(
    identifier: VolumeID, offset: Annotated[int, Query(ge=0, lt=2**40)], request: Request, service: The, who: Segmenter
) -> dict[str, Any]:
    """The bytes of a volume's stream from `offset` on."""
    chunk = await request.body()  # bounded by limits.py
    return _received(await run_in_threadpool(service.uploads.add, who.name, identifier, offset, chunk))


@router.get("/volumes/{identifier}")
def volume_state(identifier: VolumeID, service: The, who: Segmenter) -> dict[str, Any]:
    """How much of a volume is here."""
    return _received(service.uploads.state(who.name, identifier))


@router.post("/jobs", status_code=202)
def start_job(about: wire.SegmentMessage, service: The, who: Segmenter) -> dict[str, Any]:
    """Segment a volume."""
    return service.segment(who.name, about).describe(result=False)


@router.get("/jobs")
def list_jobs(service: The, who: Segmenter) -> dict[str, Any]:
    """The caller's jobs."""
    return {"jobs": [job.describe(result=False) for job in service.jobs.of(who.name)]}


@router.get("/jobs/{identifier}")
async def job_state(
    identifier: ID,
    service: The,
    who: Segmenter,
    wait: Annotated[float, Query(ge=0, le=20)] = 0,
    seen: Annotated[int, Query(ge=-1, lt=2**53)] = -1,
) -> dict[str, Any]:
    """A job; waits for something newer than revision `seen`."""
    job = service.jobs.get(who.name, identifier)
    # In threads of its own: forty that wait would otherwise leave none for clicks.
    await to_thread.run_sync(job.wait, seen, wait, limiter=service.waiting, abandon_on_cancel=True)
    return job.describe(result=True)


@router.delete("/jobs/{identifier}")
def cancel_job(identifier: ID, service: The, who: Segmenter) -> dict[str, Any]:
    """Stop a job, or drop a finished one."""
    return service.jobs.cancel(who.name, identifier).describe(result=False)


@router.post("/sessions", status_code=201)
def begin_session(about: wire.SessionMessage, service: The, who: Annotator) -> dict[str, Any]:
    """Begin to annotate a volume."""
    with service.unpacking:
        volume = service.uploads.load(who.name, about.volume)
        identifier, resumed = service.sessions.create(who.name, about, volume)
    return {"id": identifier, "lease": LEASE, "resumed": resumed, "state": _state(service, who, identifier)}


@router.get("/sessions")
def list_sessions(service: The, who: Annotator) -> dict[str, Any]:
    """The caller's sessions."""
    return {"sessions": service.sessions.of(who.name)}


@router.get("/sessions/{identifier}")
def session_state(identifier: ID, service: The, who: Annotator) -> dict[str, Any]:
    """Everything of a session."""
    return _state(service, who, identifier)


def _state(service: Service, who: Caller, identifier: str) -> dict[str, Any]:
    with service.sessions.use(who.name, identifier) as (session, entry):
        return {
            "labels": wire.pack_where(session.labels().array),
            "prompts": [to_dict(prompt) for prompt in session.prompts()],
            "structures": [label.model_dump(mode="json") for label in session.structures.values()],
            "grid": session.grid.to_dict(),
            "undo": session.undo_name,
            "redo": session.redo_name,
            "revision": entry.revision,
        }


@router.post("/sessions/{identifier}/prompts")
def say(identifier: ID, about: wire.PromptsMessage, service: The, who: Annotator) -> dict[str, Any]:
    """Something is said about the structures; answers with the voxels that changed."""
    prompts = [from_dict(prompt.model_dump()) for prompt in about.prompts]

    def spoken(session):
        editable = None if about.editable is None else wire.unpack_box(about.editable, session.grid.shape)
        if editable is not None and editable.dtype != bool:
            raise BadInput("Where voxels may change must be said by a mask of true and false.")
        return session.apply(prompts, editable=editable, locked=about.locked)

    return _changed(service, who, identifier, spoken)


@router.post("/sessions/{identifier}/undo")
def undo(identifier: ID, service: The, who: Annotator) -> dict[str, Any]:
    """Take back what was said last."""
    return _changed(service, who, identifier, lambda session: session.undo())


@router.post("/sessions/{identifier}/redo")
def redo(identifier: ID, service: The, who: Annotator) -> dict[str, Any]:
    """Bring back what was undone last."""
    return _changed(service, who, identifier, lambda session: session.redo())


def _changed(service: Service, who: Caller, identifier: str, change: Any) -> dict[str, Any]:
    with service.sessions.use(who.name, identifier, changes=True) as (session, entry):
        box = change(session)
        return {
            "box": None if box is None else wire.pack_box(session.labels().array, *box),
            "undo": session.undo_name,
            "redo": session.redo_name,
            "revision": entry.revision + 1,
        }


@router.post("/sessions/{identifier}/next")
def next_slice(identifier: ID, about: wire.NextMessage, service: The, who: Annotator) -> dict[str, Any]:
    """The slice worth outlining next, or a sentence."""
    with service.sessions.use(who.name, identifier) as (session, _):
        suspect = None if about.suspect is None else wire.unpack_box(about.suspect, session.grid.shape)
        if suspect is not None and not np.isfinite(suspect.astype(np.float32)).all():
            raise BadInput("What reflection suspects must be numbers between 0 and 1.")
        found = session.suggest(about.label, about.axis, suspect)
        if not isinstance(found, Suggestion):
            return {"nothing": found}
        residual = wire.pack_where(found.residual.astype(np.float16))
        return {
            "axis": found.axis,
            "index": found.index,
            "reason": found.reason,
            "gap": found.gap,
            "residual": residual,
        }


@router.get("/sessions/{identifier}/limits")
def limits(
    identifier: ID, label: Label, service: The, who: Annotator, axis: Annotated[int | None, Query(ge=0, le=2)] = None
) -> dict[str, Any]:
    """Where a structure seems to begin and end."""
    with service.sessions.use(who.name, identifier) as (session, _):
        found = session.propose_limits(label, axis)
        return {"limits": None if found is None else to_dict(found)}


@router.get("/sessions/{identifier}/axis")
def axis(identifier: ID, service: The, who: Annotator) -> dict[str, Any]:
    """The axis along which the fewest slices show the structures."""
    with service.sessions.use(who.name, identifier) as (session, _):
        return {"axis": session.handiest_axis()}


@router.get("/sessions/{identifier}/estimate")
def estimate(identifier: ID, label: Label, service: The, who: Annotator) -> dict[str, Any]:
    """Dice to be expected of a structure's mask; null if nothing can be told yet."""
    with service.sessions.use(who.name, identifier) as (session, _):
        return {"dice": session.estimated_dice(label)}


@router.get("/sessions/{identifier}/log")
def session_log(identifier: ID, service: The, who: Annotator) -> dict[str, Any]:
    """Everything that happened in a session."""
    with service.sessions.use(who.name, identifier) as (session, _):
        return {"events": session.export_log()}


@router.post("/sessions/{identifier}/alive")
def keep_session(identifier: ID, service: The, who: Annotator) -> dict[str, Any]:
    """The client is still there."""
    service.sessions.alive(who.name, identifier)
    return {"lease": LEASE}


@router.delete("/sessions/{identifier}", status_code=204)
def discard_session(identifier: ID, service: The, who: Annotator) -> Response:
    """Remove a session and all that was said in it."""
    service.sessions.discard(who.name, identifier)
    return Response(status_code=204)


@router.post("/sessions/{identifier}/accept", status_code=201)
def accept(
    identifier: ID, about: wire.AcceptMessage, service: The, who: Annotated[Caller, Depends(may(Action.ACCEPT))]
) -> dict[str, Any]:
    """Keep what a session has come to, for learning; on the disk when answered. The session is over.

    The case has the id of its session: whoever never got the answer may ask again, and nothing is kept twice.
    """
    spec = service.models.load(about.model).spec
    try:
        with service.sessions.use(who.name, identifier) as (session, _):
            case = accepted_case(session, about.model, about.patient, spec, site=about.site, consent=about.consent)
    except Missing:
        if any(known.id == identifier for known in service.replay.cases(about.model)):
            return {"case": identifier}
        raise
    # The log of who did it first: what cannot be logged must not be done. By the case alone: the log is kept for ever.
    service.audit.append(who.name, Action.ACCEPT, About(case=identifier))
    with service.turns.learning_goes_on():
        service.replay.accept(case, identifier)
    service.keeper.wake()
    service.sessions.discard(who.name, identifier)
    return {"case": identifier}


@router.get("/models")
def models(service: The, who: Segmenter) -> dict[str, Any]:
    """The models here and the versions in use."""
    return list_models(service.models).to_dict()


@router.get("/audit")
def audit(
    service: The,
    who: Annotated[Caller, Depends(may(Action.READ_AUDIT))],
    last: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> dict[str, Any]:
    """Who did what."""
    entries = list(service.audit.entries())[-last:]
    return {
        "entries": [
            {
                "number": entry.number,
                "time": entry.time.isoformat(),
                "who": entry.who,
                "action": entry.action.value,
                "about": {key: value for key, value in vars(entry.about).items() if value is not None},
            }
            for entry in entries
        ]
    }


@router.get("/openapi.json", include_in_schema=False)
def description(request: Request, who: Segmenter) -> JSONResponse:
    """This API, described."""
    return JSONResponse(request.app.openapi())


@router.put("/clients/{identifier}")
def here(identifier: ID, service: The, who: Segmenter) -> dict[str, Any]:
    """A program that uses this local service is still there."""
    service.clients.renew(identifier)
    return {"every": 10}


@router.delete("/clients/{identifier}", status_code=204)
def gone(identifier: ID, service: The, who: Segmenter) -> Response:
    """A program has left."""
    service.clients.leave(identifier)
    return Response(status_code=204)
