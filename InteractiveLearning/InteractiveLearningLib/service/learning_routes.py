"""The addresses about learning: what a model has learnt, what is kept for it, and who may change that."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from InteractiveLearningLib.overview import version_table
from InteractiveLearningLib.replay_overview import check, kept
from InteractiveLearningLib.reviews import review
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.service.accounts import allowed
from InteractiveLearningLib.service.audit import About, Action
from InteractiveLearningLib.service.guard import Caller, caller, may
from InteractiveLearningLib.service.keeper import waiting
from InteractiveLearningLib.service.routes import Name, Segmenter, The
from InteractiveLearningLib.verdicts import VerdictLog

router = APIRouter(prefix="/v1", dependencies=[Depends(caller)])

Version = Annotated[str, Query(pattern=r"^[1-9][0-9]{0,8}$")]


@router.get("/me")
def me(who: Segmenter) -> dict[str, Any]:
    """Whose token this is, and what it may be used for."""
    return {"name": who.name, "role": who.role.value, "may": [a.value for a in Action if allowed(who.role, a)]}


@router.get("/models/{name}/learning")
def learning(name: Name, service: The, who: Segmenter) -> dict[str, Any]:
    """What the learner of a model does, what waits for it, and what became of its candidates."""
    found = VerdictLog(service.home, name).verdicts()
    active, left = service.models.active(name), waiting(service.home, service.replay, name, found)
    verdicts = [verdict.to_dict() for verdict in found[-50:]]
    for verdict in verdicts:
        del verdict["scores"]
    running = service.keeper.running(name)
    return {
        "status": service.learner_status(name),
        "running": running,
        "held": running and service.turns.held,
        "trouble": service.keeper.trouble(name) if left.work else None,
        "cases": left.cases,
        "pending": left.pending,
        "missing": left.missing,
        "active": active,
        "previous": service.models.previous(name),
        "newest": service.models.versions(name)[-1],
        "verdicts": verdicts,
    }


@router.get("/models/{name}/versions")
def versions(
    name: Name, service: The, who: Segmenter, last: Annotated[int, Query(ge=1, le=200)] = 50
) -> dict[str, Any]:
    """The newest versions of a model: scores, losses, and why each was published or refused."""
    return {"versions": version_table(service.models, name, last)}


@router.post("/models/{name}/rollback")
def rollback(
    name: Name,
    service: The,
    who: Annotated[Caller, Depends(may(Action.ROLL_BACK))],
    leaving: Version | None = None,
) -> dict[str, Any]:
    """Return to the version that was in use before; leaving: only if this one is in use still."""
    active = service.models.active(name)
    if leaving is not None and active != leaving:
        return {"active": active}
    service.audit.append(who.name, Action.ROLL_BACK, About(version=f"{name}@{active}"))
    with service.turns.learning_goes_on():
        return {"active": service.models.rollback(name, only=leaving)}


@router.post("/models/{name}/activate")
def activate(
    name: Name, about: wire.ActivateMessage, service: The, who: Annotated[Caller, Depends(may(Action.PUBLISH))]
) -> dict[str, Any]:
    """Use this version from now on."""
    service.models.load(name, about.version)
    service.audit.append(who.name, Action.PUBLISH, About(version=f"{name}@{about.version}"))
    with service.turns.learning_goes_on():
        service.models.activate(name, about.version)
    return {"active": about.version}


@router.post("/models/{name}/reviews")
def review_version(
    name: Name, about: wire.ReviewMessage, service: The, who: Annotated[Caller, Depends(may(Action.REJECT))]
) -> dict[str, Any]:
    """What a reviewer thinks of what a version made; a run of rejected cases rolls back by itself."""
    service.models.load(name, about.version)
    action = Action.ACCEPT if about.accepted else Action.REJECT
    service.audit.append(who.name, action, About(case=about.case, version=f"{name}@{about.version}"))
    with service.turns.learning_goes_on():
        found = review(service.models, service.home, name, about.version, about.accepted, case=about.case, by=who.name)
    return {"active": found.active, "rolled_back": found.rolled_back, "reason": found.reason}


@router.get("/models/{name}/replay")
def replay(name: Name, service: The, who: Segmenter) -> dict[str, Any]:
    """What is kept for a model to learn from and to be judged by, in numbers."""
    service.models.active(name)
    return kept(service.replay, name)


@router.get("/models/{name}/replay/damaged")
def damaged(
    name: Name,
    service: The,
    who: Annotated[Caller, Depends(may(Action.CONSENT))],
    after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
) -> dict[str, Any]:
    """Read the cases kept for a model to the last byte, some of them at a time: from behind number `after` on."""
    service.models.active(name)
    return check(service.replay, name, after)


@router.post("/patients/forget")
def forget(
    about: wire.ForgetMessage, service: The, who: Annotated[Caller, Depends(may(Action.FORGET))]
) -> dict[str, Any]:
    """Remove every trace of a patient; names the versions that had learnt from the cases."""
    with service.turns.learning_goes_on():
        cases, _ = service.replay.about(about.patient)
        for case in cases or [None]:
            service.audit.append(who.name, Action.FORGET, About(case=case))
        return {"cases": len(cases), "versions": service.replay.forget(about.patient)}
