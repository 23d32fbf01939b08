"""A session of a service, used as if it were here: what Session does, with its own copy of the label map."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.spec import Label
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

from InteractiveLearningLib.guidance import Suggestion
from InteractiveLearningLib.merge import Bounds
from InteractiveLearningLib.prompts import Limits, Prompt, from_dict, to_dict
from InteractiveLearningLib.service.client import LONG_SECONDS, Client
from InteractiveLearningLib.service.failures import Unreachable
from InteractiveLearningLib.service.wire import ArrayBox, pack_where, unpack_box, unpack_values

# Signs of life within one lease: two may get lost.
SIGNS_PER_LEASE = 3


class RemoteSession:
    """A case being annotated on a service. Make one with `create` or `open`; close it, or use it in a `with`.

    Like Session: `apply`, `undo`, `redo` change the masks and return the changed box (lower, upper) in k, j, i, upper
    exclusive, or None; errors are Session's own BadInput, and those of Client. If an answer was lost, what the service
    has is looked up before anything is said again, so that nothing enters twice.

    id: of the session on the service. grid, structures: see Session. volume: the image. earlier: see Session.create.
    resumed: True if it was cut off and goes on. reach: gives a client of a service that had to be started again.
    """

    def __init__(
        self,
        client: Client,
        identifier: str,
        lease: float,
        state: Mapping[str, Any],
        events: int,
        volume: Volume | None = None,
        earlier: Sequence[Prompt] = (),
        *,
        resumed: bool = False,
        reach: Callable[[], Client] | None = None,
    ) -> None:
        self._client, self.id, self.volume, self.earlier = client, identifier, volume, tuple(earlier)
        self._reach, self.resumed = reach, resumed
        self._path = f"/sessions/{identifier}"
        # How many events its log has; unsure: unless one has entered whose answer was lost.
        self._events, self._unsure = events, False
        with client.understood():
            self.grid = Grid.from_dict(state["grid"])
            self.structures = {d["value"]: Label.model_validate(d) for d in state["structures"]}
        # Prompts that hold: those known as a list, then the groups that undo takes back; None: to be asked for.
        self._before: list[Prompt] | None = None
        self._done: list[tuple[Prompt, ...]] = []
        self._undone: list[tuple[Prompt, ...]] = []
        self._take(state)
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, args=(float(lease),), name="lease", daemon=True)
        self._keeper.start()

    @classmethod
    def create(
        cls,
        client: Client,
        volume: Volume,
        labels: Sequence[Label],
        mask: npt.NDArray[np.unsignedinteger] | None = None,
        *,
        channel: int = 0,
        earlier: Sequence[Prompt] = (),
        name: str | None = None,
        reach: Callable[[], Client] | None = None,
        progress: Progress = SILENT,
    ) -> RemoteSession:
        """Begin a session; the image is sent unless the service has it.

        mask: (k, j, i) label values to begin from, as a model's that is rather sure of them; else see Session.create.
        name: 32 hex digits; an own session of that name that was cut off goes on, as it is. reach: see the class.
        """
        about = {
            "volume": client.upload(volume, progress),
            "labels": [label.model_dump(mode="json") for label in labels],
            "channel": channel,
            "earlier": [to_dict(prompt) for prompt in earlier],
            "mask": None if mask is None else _packed(mask),
            "name": name,
        }
        again = name is not None  # the name finds what the first time began
        opened = client.ask("POST", "/sessions", body=about, again=again, timeout=LONG_SECONDS, progress=progress)
        with client.understood():
            if opened.get("resumed"):
                return cls.open(client, opened["id"], volume, reach=reach)
            return cls(client, opened["id"], opened["lease"], opened["state"], 1, volume, earlier, reach=reach)

    @classmethod
    def open(
        cls,
        client: Client,
        identifier: str,
        volume: Volume | None = None,
        *,
        reach: Callable[[], Client] | None = None,
    ) -> RemoteSession:
        """Go on with a session of the service (see Client.sessions). Raises NotFound if it is over."""
        path = f"/sessions/{identifier}"
        state = client.ask("GET", path, timeout=LONG_SECONDS)
        with client.understood():
            events = client.ask("GET", f"{path}/log")["events"]
            lease = client.ask("POST", f"{path}/alive", again=True)["lease"]
            earlier = [from_dict(prompt) for prompt in events[0]["event"]["earlier"]]
            return cls(client, identifier, lease, state, len(events), volume, earlier, resumed=True, reach=reach)

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; it stays on the service for some days, to go on later."""
        self._over.set()

    def discard(self) -> None:
        """End it for good; nothing of it is kept."""
        self.close()
        self._ask("DELETE", self._path)

    def apply(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        editable: npt.NDArray[np.bool_] | None = None,
        locked: Collection[int] = (),
    ) -> Bounds | None:
        """See Session.apply."""
        given = tuple(prompts) if isinstance(prompts, Sequence) else (prompts,)
        if not given:
            raise BadInput("Nothing was said; give at least one prompt.")
        if editable is not None and editable.shape != self.grid.shape:
            raise BadInput(f"An editable mask of {editable.shape} voxels does not fit an image of {self.grid.shape}.")
        body = {
            "prompts": [to_dict(prompt) for prompt in given],
            "editable": None if editable is None else _packed(editable),
            "locked": sorted(int(value) for value in locked),
        }
        changed, looked_up = self._change("prompts", body)
        if not looked_up:
            self._done.append(given)
            self._undone.clear()
        return changed

    def undo(self) -> Bounds | None:
        """See Session.undo."""
        changed, looked_up = self._change("undo")
        if self._done and not looked_up:
            self._undone.append(self._done.pop())
        elif not looked_up:
            self._before = None  # it was said before this session was opened here
        return changed

    def redo(self) -> Bounds | None:
        """See Session.redo."""
        changed, looked_up = self._change("redo")
        if self._undone and not looked_up:
            self._done.append(self._undone.pop())
        elif not looked_up:
            self._before, self._done = None, []
        return changed

    def labels(self) -> LabelMap:
        """The label map now (a copy)."""
        return LabelMap(self._labels.copy(), self.grid)

    def prompts(self) -> list[Prompt]:
        """All prompts that hold, in order."""
        if self._before is None:
            self._take(self._ask("GET", self._path))
        return [*(self._before or ()), *(prompt for group in self._done for prompt in group)]

    def suggest(
        self, label: int | None = None, axis: int | None = None, suspect: npt.NDArray | None = None
    ) -> Suggestion | str:
        """See Session.suggest."""
        doubt = None if suspect is None else _packed(np.asarray(suspect).astype(np.float16))
        body = {"label": label, "axis": axis, "suspect": doubt}
        found = self._ask("POST", f"{self._path}/next", body=body, again=True, timeout=LONG_SECONDS)
        if "nothing" in found:
            return str(found["nothing"])
        with self._client.understood():
            residual = self._unpacked(found["residual"]).astype(np.float32)
            return Suggestion(found["axis"], found["index"], found["reason"], residual, found["gap"])

    def handiest_axis(self) -> int:
        """See Session.handiest_axis."""
        with self._client.understood():
            return int(self._ask("GET", f"{self._path}/axis")["axis"])

    def propose_limits(self, label: int, axis: int | None = None) -> Limits | None:
        """See Session.propose_limits."""
        params = {"label": label} | ({} if axis is None else {"axis": axis})
        with self._client.understood():
            found = self._ask("GET", f"{self._path}/limits", params=params, timeout=LONG_SECONDS)["limits"]
            return None if found is None else from_dict(found)

    def estimated_dice(self, label: int) -> float | None:
        """Dice to be expected of a label's mask, 0..1; None if nothing can be told yet."""
        with self._client.understood():
            return self._ask("GET", f"{self._path}/estimate", params={"label": label})["dice"]

    def export_log(self) -> list[dict[str, Any]]:
        """Every event with its number and time, for an audit."""
        with self._client.understood():
            return list(self._ask("GET", f"{self._path}/log")["events"])

    def accept(self, model: str, patient: str, *, site: str = "", consent: bool = True) -> str:
        """Keep the case for good, for `model` to learn; returns its id. The session is over then."""
        body = {"model": model, "patient": patient, "site": site, "consent": consent}
        # Sent again if the answer was lost: the case has the id of the session, so it is kept once.
        answer = self._ask("POST", f"{self._path}/accept", body=body, again=True, timeout=LONG_SECONDS)
        self.close()
        with self._client.understood():
            return str(answer["case"])

    def _change(self, what: str, body: Mapping[str, Any] | None = None) -> tuple[Bounds | None, bool]:
        """Say something that changes the masks; returns the changed box, and whether it had to be looked up because
        the answer was lost."""
        path, asked = f"{self._path}/{what}", {"body": body, "again": False, "timeout": LONG_SECONDS}
        shown, box = self._labels, None
        if self._unsure:
            self._catch_up()
        try:
            answer = self._client.ask("POST", path, **asked)
        except Unreachable as error:
            if not error.sent and self._reach is None:
                raise
            self._unsure = error.sent
            if error.sent and len(self.export_log()) > self._events:  # it has entered
                self._catch_up()
                return _difference(shown, self._labels), True
            answer = self._ask("POST", path, **asked)
            self._unsure = False
        self._events += 1
        with self._client.understood():
            self.undo_name, self.redo_name = answer["undo"], answer["redo"]
            if answer["box"] is not None:
                box = ArrayBox.model_validate(answer["box"])
                self._labels[tuple(map(slice, box.lower, box.upper))] = unpack_values(box)
        if shown is not self._labels:
            return _difference(shown, self._labels), False
        return None if box is None else (box.lower, box.upper), False

    def _ask(self, *what: Any, **options: Any) -> dict[str, Any]:
        """Ask, and once more if the service had to be started again: it has the session from its log."""
        try:
            return self._client.ask(*what, **options)
        except Unreachable as error:
            if self._reach is None or (error.sent and not options.get("again", what[0] != "POST")):
                raise
            self._client = self._reach()
            return self._client.ask(*what, **options)

    def _catch_up(self) -> None:
        """Take everything anew from the service, after an answer was lost."""
        self._events = len(self.export_log())
        self._take(self._ask("GET", self._path, timeout=LONG_SECONDS))
        self._unsure = False

    def _take(self, state: Mapping[str, Any]) -> None:
        with self._client.understood():
            self._labels = self._unpacked(state["labels"])
            self.undo_name, self.redo_name = state["undo"], state["redo"]
            self._before = [from_dict(prompt) for prompt in state["prompts"]]
        self._done, self._undone = [], []

    def _unpacked(self, box: Mapping[str, Any]) -> npt.NDArray:
        return unpack_box(ArrayBox.model_validate(box), self.grid.shape)

    def _keep(self, lease: float) -> None:
        while not self._over.wait(lease / SIGNS_PER_LEASE):
            try:
                # Not by _ask: a thread in the background must not start a service that was ended on purpose.
                lease = float(self._client.ask("POST", f"{self._path}/alive", again=True)["lease"])
            except (RefSegError, KeyError, TypeError, ValueError):
                continue  # the next request says what is wrong, where somebody sees it


def _packed(array: npt.NDArray) -> dict[str, Any]:
    return pack_where(array).model_dump(mode="json")


def _difference(before: npt.NDArray, after: npt.NDArray) -> Bounds | None:
    changed = pack_where(before != after)
    return (changed.lower, changed.upper) if changed.upper > changed.lower else None
