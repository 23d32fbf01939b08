"""Who may ask for what: every route with every kind of token, and what belongs to somebody else."""

import hashlib
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
from InteractiveLearningLib.service.accounts import Accounts, Role

ANNOTATOR, REVIEWER, ADMINISTRATOR = Role.ANNOTATOR, Role.REVIEWER, Role.ADMINISTRATOR
_ORDER = [ANNOTATOR, REVIEWER, ADMINISTRATOR]
# The least role that may. A route that is not here is a mistake: somebody has to say who may use it.
LEAST = {
    "POST /v1/volumes": ANNOTATOR,
    "PUT /v1/volumes/{identifier}": ANNOTATOR,
    "GET /v1/volumes/{identifier}": ANNOTATOR,
    "POST /v1/jobs": ANNOTATOR,
    "GET /v1/jobs": ANNOTATOR,
    "GET /v1/jobs/{identifier}": ANNOTATOR,
    "DELETE /v1/jobs/{identifier}": ANNOTATOR,
    "POST /v1/sessions": ANNOTATOR,
    "GET /v1/sessions": ANNOTATOR,
    "GET /v1/sessions/{identifier}": ANNOTATOR,
    "POST /v1/sessions/{identifier}/prompts": ANNOTATOR,
    "POST /v1/sessions/{identifier}/undo": ANNOTATOR,
    "POST /v1/sessions/{identifier}/redo": ANNOTATOR,
    "POST /v1/sessions/{identifier}/next": ANNOTATOR,
    "GET /v1/sessions/{identifier}/limits": ANNOTATOR,
    "GET /v1/sessions/{identifier}/axis": ANNOTATOR,
    "GET /v1/sessions/{identifier}/estimate": ANNOTATOR,
    "GET /v1/sessions/{identifier}/log": ANNOTATOR,
    "POST /v1/sessions/{identifier}/alive": ANNOTATOR,
    "DELETE /v1/sessions/{identifier}": ANNOTATOR,
    "POST /v1/sessions/{identifier}/accept": REVIEWER,
    "GET /v1/worklist": ANNOTATOR,
    "GET /v1/worklist/{identifier}/volume": ANNOTATOR,
    "POST /v1/worklist/{identifier}": ANNOTATOR,
    "GET /v1/models": ANNOTATOR,
    "GET /v1/me": ANNOTATOR,
    "GET /v1/models/{name}/learning": ANNOTATOR,
    "GET /v1/models/{name}/versions": ANNOTATOR,
    "GET /v1/models/{name}/replay": ANNOTATOR,
    "GET /v1/models/{name}/replay/damaged": REVIEWER,
    "POST /v1/models/{name}/rollback": REVIEWER,
    "POST /v1/models/{name}/reviews": REVIEWER,
    "POST /v1/models/{name}/activate": ADMINISTRATOR,
    "POST /v1/patients/forget": ADMINISTRATOR,
    "GET /v1/audit": ADMINISTRATOR,
    "PUT /v1/clients/{identifier}": ANNOTATOR,
    "DELETE /v1/clients/{identifier}": ANNOTATOR,
}
PATIENT = "Hostile^Patient"
CLICK = {"kind": "click", "point": [8, 8, 5], "positive": True, "label": 1}
LABELS = [{"value": 1, "name": "bright", "color": [1, 0, 0]}, {"value": 2, "name": "dim", "color": [0, 0, 1]}]


def routes(description: dict) -> list[str]:
    """All routes of an OpenAPI description but the greeting, which is for everybody."""
    paths = {path: found for path, found in description["paths"].items() if path != "/hello"}
    return [f"{method.upper()} {path}" for path, found in paths.items() for method in found]


def request(route: str, volume: str, session: str, job: str) -> dict:
    """A good request for a route: keyword arguments of httpx."""
    method, path = route.split()
    known = {"volumes": volume, "sessions": session, "jobs": job, "clients": "c" * 32, "worklist": "d" * 32}
    identifier = known.get(path.split("/")[2], "")
    announced = {"id": "b" * 64, "shape": [1, 8, 8, 8], "dtype": "uint8", "packed": 100}
    announced["grid"] = {
        "shape": [8, 8, 8],
        "spacing": [1, 1, 1],
        "direction": [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
        "origin": [0, 0, 0],
    }
    bodies = {
        "POST /v1/volumes": announced,
        "POST /v1/jobs": {"volume": volume, "model": "balls"},
        "POST /v1/sessions": {"volume": volume, "labels": LABELS},
        "POST /v1/sessions/{identifier}/prompts": {"prompts": [CLICK]},
        "POST /v1/sessions/{identifier}/next": {},
        "POST /v1/sessions/{identifier}/accept": {"model": "balls", "patient": PATIENT},
        "POST /v1/worklist/{identifier}": {"state": "take"},
        "POST /v1/models/{name}/activate": {"version": "1"},
        "POST /v1/models/{name}/reviews": {"version": "1", "accepted": False},
        "POST /v1/patients/forget": {"patient": PATIENT},
    }
    found = {"method": method, "url": path.format(identifier=identifier, name="balls"), "params": {}}
    if path.endswith(("/limits", "/estimate")):
        found["params"] = {"label": 1}
    if method == "PUT":
        found |= {"params": {"offset": 0}, "content": b"x"}
    return found | ({"json": bodies[route]} if route in bodies else {})


def tree(home: Path) -> dict[str, str]:
    """Every file under a folder with the hash of its content, but for what any reader changes."""
    kept = (f for f in sorted(home.rglob("*")) if f.is_file() and not _passing(f.name))
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}


def _passing(name: str) -> bool:
    return name.endswith((".lock", ".tmp", "-wal", "-shm")) or name in ("accounts.json", "lock")


class Site:
    """Accounts of every kind at a service. tokens: by role; refused: tokens that open nothing (any more)."""

    def __init__(self, home: Path) -> None:
        accounts = Accounts(home)
        long_ago = Accounts(home, now=lambda: datetime.now(timezone.utc) - timedelta(days=9))
        self.tokens = {}
        for role in Role:
            accounts.add(f"an-{role.value}", role)
            self.tokens[role] = accounts.give_token(f"an-{role.value}")
        administrator = f"an-{ADMINISTRATOR.value}"
        revoked = accounts.give_token(administrator)
        accounts.revoke_token(revoked.partition(".")[0])
        accounts.add("gone", ADMINISTRATOR)
        of_gone = accounts.give_token("gone")
        accounts.revoke("gone")
        right = self.tokens[ADMINISTRATOR]
        self.refused = {
            "wrong": right[:-1] + ("A" if right[-1] != "A" else "B"),
            "made up": "0" * 12 + ".AAAA",
            "revoked": revoked,
            "of a revoked user": of_gone,
            "expired": long_ago.give_token(administrator, timedelta(days=1)),
            "longer": right + "A",
        }


def unauthorised(url: str, site: Site, home: Path, own: dict[str, str]) -> tuple[Counter, list[str]]:
    """Ask for every route without a token, with ones that open nothing, and as every role that may not.

    own: volume, session and job of the administrator, which all the requests are about. Returns (answers, faults).
    """
    answers, faults, before = Counter(), [], tree(home)
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        right = {"Authorization": f"Bearer {site.tokens[ADMINISTRATOR]}"}
        found = routes(client.get("/v1/openapi.json", headers=right).json())
    faults += [f"{route}: nobody has said who may" for route in set(found) ^ set(LEAST)]
    attempts = 0
    for route in [*found, "GET /v1/openapi.json"]:
        given = request(route, **own)
        for what, token in [("none", None), ("empty", ""), *site.refused.items()]:
            # Failures are counted by address; this is not about the counting.
            with _from(url, f"127.0.{1 + attempts // 8 // 250}.{1 + attempts // 8 % 250}") as client:
                attempts += bool(token)
                status = client.request(**given, headers=_bearer(token)).status_code
            answers[status] += 1
            if status != 401:
                faults.append(f"{route} with the token '{what}' was answered {status}")
        for role in _ORDER[: _ORDER.index(LEAST.get(route, ANNOTATOR))]:
            with _from(url, "127.0.0.1") as client:
                status = client.request(**given, headers=_bearer(site.tokens[role])).status_code
            answers[status] += 1
            if status != 403:
                faults.append(f"{route} as {role.value} was answered {status}")
    if tree(home) != before:
        changed = set(tree(home).items()) ^ set(before.items())
        faults.append(f"Requests that were refused changed {sorted({name for name, _ in changed})}")
    return answers, faults


def intruding(url: str, token: str, own: dict[str, str], home: Path) -> tuple[Counter, list[str]]:
    """Ask with a good token for what is somebody else's. Returns (answers, faults)."""
    answers, faults, before = Counter(), [], tree(home)
    with _from(url, "127.0.0.1") as client:
        for route in LEAST:
            if "{identifier}" not in route and route not in ("POST /v1/jobs", "POST /v1/sessions"):
                continue
            if "/clients/" in route:
                continue
            answer = client.request(**request(route, **own), headers=_bearer(token))
            answers[answer.status_code] += 1
            if answer.status_code != 404:
                faults.append(f"{route} for what is another's was answered {answer.status_code}")
        for route in ("/v1/jobs", "/v1/sessions"):
            said = client.get(route, headers=_bearer(token)).text
            if any(identifier in said for identifier in own.values()):
                faults.append(f"{route} shows what is another's")
    if tree(home) != before:
        faults.append("Asking for what is another's has changed something")
    return answers, faults


def guessing(url: str, token: str) -> list[str]:
    """Whoever guesses tokens has to wait, and nobody at another address has to."""
    faults = []
    with _from(url, "127.0.9.9") as client:
        said = [client.get("/v1/models", headers=_bearer(f"{n:012x}.guess")).status_code for n in range(12)]
        if said != [401] * 10 + [429] * 2:
            faults.append(f"Twelve wrong tokens were answered {said}")
        answer = client.get("/v1/models", headers=_bearer(token))
        if answer.status_code != 429 or not 0 < int(answer.headers["Retry-After"]) <= 60:
            faults.append(f"After them a right one was answered {answer.status_code}")
    with _from(url, "127.0.9.8") as client:
        if client.get("/v1/models", headers=_bearer(token)).status_code != 200:
            faults.append("An address pays for another's wrong tokens")
    return faults


def _from(url: str, address: str) -> httpx.Client:
    """A client at an address of its own: all of 127.0.0.0/8 is this machine."""
    return httpx.Client(base_url=url, timeout=120, transport=httpx.HTTPTransport(local_address=address))


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}".strip()}
