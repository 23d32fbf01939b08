"""What a service can do, by name: for Slicer, the browser workspace and scripts. Needs numpy and httpx, no torch.

client = Client("https://segment.example.org:8443", token, certificate=Path("site.pem"))
volume = client.upload(image)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.volume import Volume

from InteractiveLearningLib.listing import Listing
from InteractiveLearningLib.service.download import received
from InteractiveLearningLib.service.failures import Elsewhere, NotFound, WrongServer, place
from InteractiveLearningLib.service.transport import ANSWER_SECONDS, PATIENCE_SECONDS, Transport
from InteractiveLearningLib.service.wire import CHUNK, LEVEL, VoxelType, volume_head, volume_id

TEST_SECONDS = 5.0
# Of a chunk on a slow line, and of what the engine has to think about first.
LONG_SECONDS = 120.0
_PACKED_AT_ONCE = 2**24
_MOST_DETOURS = 10


class Client:
    """A service and what it can do. Safe with many threads; close it, or use it in a `with`.

    url: https://SERVER:PORT; http:// only on this computer itself. certificate: a file to trust instead of the
    system's certificates, for a server whose certificate is its own or its site's. timeout: seconds for an answer.
    patience: see Transport.

    Every method raises RefSegError with a sentence: BadInput for what was given; of failures.py Unreachable,
    NotTrusted, WrongServer, Denied, NotFound, Busy (after some tries) or another ServiceError. What lives on the server
    is named by strings; answers are those of the API, as dicts.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        certificate: Path | None = None,
        timeout: float = ANSWER_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._transport = Transport(url, token, certificate=certificate, timeout=timeout, patience=patience)
        self.ask = self._transport.ask

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; what runs on the server goes on."""
        self._transport.close()

    def hello(self) -> dict[str, Any]:
        """service, api (list of versions) and version of the server. Raises WrongServer if they cannot be talked to."""
        return self._transport.hello()

    # Volumes

    def upload(self, volume: Volume, progress: Progress = SILENT) -> str:
        """Send a volume, unless the server has it; returns the id by which it knows it. Goes on after interruptions.

        Voxels of types that do not travel become float32 or int32. Cancelled between pieces of 4 MB; what was sent
        until then need not be sent again for an hour.
        """
        volume = sendable(volume)
        identifier = volume_id(volume)
        try:
            if self.ask("GET", f"/volumes/{identifier}", progress=progress).get("complete") is True:
                return identifier
        except NotFound:
            pass
        packed = _packed(volume, progress.part(0.0, 0.3))
        begun = self._send(volume, identifier, packed, progress.part(0.3, 1.0))
        if begun:  # the beginning came from another program, whose zlib may pack otherwise
            self._send(volume, identifier, packed, progress.part(0.3, 1.0))
        return identifier

    def _send(self, volume: Volume, identifier: str, packed: bytes, progress: Progress) -> bool:
        """Send what the server lacks. True if that was not the beginning, and the whole was damaged."""
        about = {"id": identifier, "packed": len(packed), **volume_head(volume)}
        answer = self.ask("POST", "/volumes", body=about, again=True, progress=progress)
        begun = self._received(answer) > 0
        detours = 0
        while answer.get("complete") is not True:
            offset, most = self._received(answer), min(int(answer.get("chunk") or CHUNK), CHUNK)
            progress(offset / len(packed), "Sending the image")
            chunk = packed[offset : offset + most]
            try:
                where = f"/volumes/{identifier}"
                options = {"params": {"offset": offset}, "timeout": LONG_SECONDS, "progress": progress}
                answer = self.ask("PUT", where, content=chunk, **options)
            except Elsewhere as elsewhere:  # the chunk had arrived, and only the answer was lost
                detours += 1
                if detours > _MOST_DETOURS:
                    raise
                answer = elsewhere.answer
            except BadInput:
                if begun:
                    return True
                raise
        return False

    def _received(self, answer: Mapping[str, Any]) -> int:
        with self.understood():
            return int(answer.get("received", 0))

    # Jobs

    def start_job(self, volume: str, model: str, **options: Any) -> dict[str, Any]:
        """Segment an uploaded volume; returns the Job. options: reflect, roi, suspect as for Runner.segment."""
        return self.ask("POST", "/jobs", body={"kind": "segment", "volume": volume, "model": model, **options})

    def job(self, identifier: str, *, wait: float = 0.0, seen: int = -1) -> dict[str, Any]:
        """The Job; answers after `wait` seconds, earlier once there is something newer than revision `seen`."""
        return self.ask("GET", f"/jobs/{identifier}", params={"wait": wait, "seen": seen})

    def jobs(self) -> list[dict[str, Any]]:
        """Own jobs, without results."""
        return self._list("/jobs", "jobs")

    def cancel_job(self, identifier: str) -> dict[str, Any]:
        """Stop a job, or drop the result of one that is over."""
        return self.ask("DELETE", f"/jobs/{identifier}")

    # Sessions that are open somewhere; remote.RemoteSession works with one.

    def sessions(self) -> list[dict[str, Any]]:
        """Own sessions: id, opened_at, prompts, volume."""
        return self._list("/sessions", "sessions")

    # The worklist of a site

    def worklist(self) -> list[dict[str, Any]]:
        """id, name, state, by, held and mine of each case. Raises NotFound if the server has no worklist."""
        return self._list("/worklist", "cases")

    def worklist_state(self, identifier: str, state: str) -> dict[str, Any]:
        """Take a case ("take"), let others have it ("leave"), or say that it is "accepted", "rejected" or "skipped".

        Returns the case; if it was taken, with `patient`, and `lease`: take it again within so many seconds. Raises
        Elsewhere if somebody else has it, or, for all but "take", if the caller has not.
        """
        return self.ask("POST", f"/worklist/{identifier}", body={"state": state}, again=True)

    def worklist_volume(self, identifier: str, progress: Progress = SILENT) -> Volume:
        """The image of a case that was taken; the server has it then as if it had been uploaded.

        Raises BadInput for a file that is no image.
        """
        options = {"timeout": LONG_SECONDS, "progress": progress}
        where = f"/worklist/{identifier}/volume"
        return self.ask("GET", where, take=lambda response: received(response, progress), **options)

    # Models and learning

    def models(self) -> list[dict[str, Any]]:
        """name, active version, description, labels, versions and more of each model: see `listing`."""
        return self._list("/models", "models")

    def listing(self) -> Listing:
        """The models as people choose among them, and a sentence on each that cannot be used."""
        answer = self.ask("GET", "/models")
        with self.understood():
            return Listing.from_dict(answer)

    def learning(self, model: str) -> dict[str, Any]:
        """What the learner of a model does: status (what it said last: state, message, iteration of iterations, losses;
        or None), running, held (somebody else computes), trouble (why it does not run though it should, or None);
        cases, pending (of those), missing (validation patients); active, previous and newest version, verdicts (the
        last 50, without scores)."""
        return self.ask("GET", f"{_model(model)}/learning")

    def versions(self, model: str, last: int = 50) -> list[dict[str, Any]]:
        """The newest versions of a model with scores, losses and reasons, newest first: see overview.version_table."""
        return self._list(f"{_model(model)}/versions", "versions", last=last)

    def roll_back(self, model: str, leaving: str | None = None) -> str:
        """Return to the version that was active before; returns the one that is active then.

        leaving: do so only if this version is the active one still.
        """
        # Without that not sent again: twice would go back two versions.
        params = {} if leaving is None else {"leaving": leaving}
        return self._active(self.ask("POST", f"{_model(model)}/rollback", params=params, again=leaving is not None))

    def activate(self, model: str, version: str) -> str:
        """Make a version the one in use; returns it."""
        return self._active(self.ask("POST", f"{_model(model)}/activate", body={"version": version}, again=True))

    def review(self, model: str, version: str, accepted: bool, case: str | None = None) -> dict[str, Any]:
        """Say what a version made is right or wrong. Returns active, rolled_back and the reason for it."""
        body = {"version": version, "case": case, "accepted": accepted}
        return self.ask("POST", f"{_model(model)}/reviews", body=body)

    def replay(self, model: str) -> dict[str, Any]:
        """What is kept for a model, in numbers: see replay_overview.kept."""
        return self.ask("GET", f"{_model(model)}/replay", timeout=LONG_SECONDS)

    def damaged(self, model: str, progress: Progress = SILENT) -> list[dict[str, Any]]:
        """Have every case that is kept for a model read: case, accepted and reason of those that are damaged.

        Takes as long as that takes; cancelled every few seconds.
        """
        found: list[dict[str, Any]] = []
        after, checked = 0, 0
        with self.understood():
            while after is not None:
                options = {"timeout": LONG_SECONDS, "progress": progress}
                answer = self.ask("GET", f"{_model(model)}/replay/damaged", params={"after": after}, **options)
                found += answer["damaged"]
                after, checked = answer["after"], checked + answer["checked"]
                progress(checked / max(1, checked + answer["left"]), "Reading what is kept")
        return found

    def me(self) -> dict[str, Any]:
        """name and role of whose token this is, and `may`: what it may be used for."""
        return self.ask("GET", "/me")

    def forget(self, patient: str) -> dict[str, Any]:
        """Remove every trace of a patient; returns `cases`, how many, and `versions` that had learnt from them."""
        return self.ask("POST", "/patients/forget", body={"patient": patient}, again=True, timeout=LONG_SECONDS)

    def audit(self, last: int = 100) -> list[dict[str, Any]]:
        """The newest entries of the audit log."""
        return self._list("/audit", "entries", last=last)

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Read an answer; one that is not as it should be becomes WrongServer."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            where = place(self._transport.url)
            raise WrongServer(
                f"The server at {where} answers otherwise than this RefSeg expects ({type(error).__name__}: {error}). "
                "Update the server and this RefSeg to the same version."
            ) from error

    def _active(self, answer: Mapping[str, Any]) -> str:
        with self.understood():
            return str(answer["active"])

    def _list(self, path: str, name: str, **params: Any) -> list[dict[str, Any]]:
        with self.understood():
            return list(self.ask("GET", path, params=params)[name])


@dataclass(frozen=True)
class Connection:
    """Whether a service can be worked with, and a sentence for people. version: the server's, if it told; name and
    role: whose the token is, if the server knows it."""

    ok: bool
    sentence: str
    version: str | None = None
    name: str | None = None
    role: str | None = None


def test_connection(url: str, token: str, certificate: Path | None = None) -> Connection:
    """Try a server's address, certificate and token, for a button. Takes some seconds at most; raises nothing."""
    version = None
    try:
        with Client(url, token, certificate=certificate, timeout=TEST_SECONDS, patience=0) as client:
            version = str(client.hello().get("version"))
            me = client.me()
            with client.understood():
                name, role = str(me["name"]), str(me["role"])
    except RefSegError as error:
        return Connection(False, str(error), version)
    sentence = f"The server answers (RefSeg {version}), and knows the token: it is {name}'s, {role}."
    return Connection(True, sentence, version, name, role)


test_connection.__test__ = False  # type: ignore[attr-defined]  # no test, whatever pytest makes of its name


def sendable(volume: Volume) -> Volume:
    """The same volume with voxels of a type that travels: whole numbers as int32 if they fit, all else as float32."""
    array = volume.array
    if array.dtype.name in VoxelType.__args__:
        return volume
    if array.dtype.kind in "biu":
        limits = np.iinfo(np.int32)
        fits = limits.min <= array.min() and array.max() <= limits.max
        return Volume(array.astype(np.int32 if fits else np.float32), volume.grid)
    if array.dtype.kind != "f":
        raise BadInput(f"Voxels of type {array.dtype} are no image. Convert the image to numbers first.")
    with np.errstate(over="ignore"):
        return Volume(array.astype(np.float32), volume.grid)


def _model(name: str) -> str:
    return f"/models/{quote(name, safe='')}"


def _packed(volume: Volume, progress: Progress) -> bytes:
    """The zlib stream of wire.pack_volume, a piece at a time, so that it can be cancelled and needs no second copy."""
    array = np.ascontiguousarray(volume.array, volume.array.dtype.newbyteorder("<"))
    content, packer, pieces = memoryview(array.reshape(-1).view(np.uint8)), zlib.compressobj(LEVEL), []
    for at in range(0, len(content), _PACKED_AT_ONCE):
        progress(at / len(content), "Compressing the image")
        pieces.append(packer.compress(content[at : at + _PACKED_AT_ONCE]))
    return b"".join([*pieces, packer.flush()])
