"""One case being annotated: an append-only log of what was said, and the label map that follows from it.

A session is a folder:

    session.jsonl    one event a line (see eventlog.py); the first names image and labels, then prompts and undos
    arrays/abcd…     the image and the model's probabilities, compressed, named by the hash of their content

The state is a fold over the events. Nothing else is saved: the log is the autosave, and replaying it gives the same
mask bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

from InteractiveLearningLib.advice import handiest_axis, propose_limits, suggest_slice
from InteractiveLearningLib.allowed import check_allowed
from InteractiveLearningLib.arrays import keep_array, load_array
from InteractiveLearningLib.eventlog import EventLog
from InteractiveLearningLib.fold import said
from InteractiveLearningLib.guidance import Suggestion
from InteractiveLearningLib.mask import mask_of
from InteractiveLearningLib.merge import Bounds, bounds_of, difference, disputed, taken_over
from InteractiveLearningLib.outcome import Accepted, accepted_of
from InteractiveLearningLib.prompts import Limits, Prompt, from_dict, name_of, to_dict
from InteractiveLearningLib.propagation import FlowCache
from InteractiveLearningLib.scene import LabelResult, LabelState, Region, scene_of

SCHEMA = 2


@dataclass(frozen=True)
class _Said:
    """Prompts given at once, and what kept other voxels from changing then (see Session.apply)."""

    prompts: tuple[Prompt, ...]
    locked: tuple[int, ...] = ()
    editable: str | None = None


@dataclass(frozen=True)
class _Step:
    """What was said, and what takes it back: the labels' states and the voxels of `region` before it."""

    said: _Said
    states: Mapping[int, LabelState]
    region: Region
    before: npt.NDArray


class Session:
    """A case being annotated. Make one with `create` or `open`; close it, or use it in a `with`.

    grid: of the image and the label map. structures: the labels by value. channel: of the image, that slices are
    registered by. earlier: prompts of another session, see `create`.
    """

    def __init__(self, folder: Path, log: EventLog) -> None:
        created = log.events[0]["event"]
        if created.get("schema") != SCHEMA:
            raise RefSegError(
                f"The session in {folder} was written by another version of RefSeg. Open it with that one."
            )
        self.folder, self._log = folder, log
        self.grid = Grid.from_dict(created["grid"])
        self.structures = {d["value"]: Label.model_validate(d) for d in created["labels"]}
        image = load_array(folder, created["image"])
        given = created["model_probabilities"]
        probabilities = None if given is None else load_array(folder, given)
        self.volume = Volume(image, self.grid)
        self._model = scene_of(image[created["channel"]], self.grid, tuple(self.structures), probabilities)
        self._scene = self._model  # with what the limits of all labels say
        self._labels = self._scene.base.copy()
        self._states: dict[int, LabelState] = {value: LabelState() for value in self.structures}
        self.earlier = tuple(from_dict(prompt) for prompt in created["earlier"])
        for prompt in self.earlier:
            before = self._states[prompt.label]
            self._states[prompt.label] = said(self._scene, prompt.label, before, prompt, self._labels)
        self._done: list[_Step] = []
        self._undone: list[_Said] = []
        self._editable: tuple[str, npt.NDArray[np.bool_]] | None = None
        self._flows = FlowCache()
        self._results: dict[int, tuple[LabelState, LabelResult]] = {}
        self._limit(self._states)
        for said_ in _effective(log.events[1:], self._undone):
            self._do(said_)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        volume: Volume,
        labels: Sequence[Label],
        model_probabilities: npt.NDArray | None = None,
        limits: Sequence[Limits] = (),
        *,
        channel: int = 0,
        earlier: Sequence[Prompt] = (),
    ) -> Session:
        """Begin a session in a new or empty folder.

        model_probabilities: (outputs, k, j, i) in 0..1 on the grid of the volume, background first, then one per label
        in order; None for a structure no model knows. limits: marks that are known from the start.
        earlier: prompts of a session that `model_probabilities` are the outcome of. They are known, so that outlines
        count; the masks stay as they are until something is said, and undo does not reach back to them.
        Raises BadInput if the image cannot be segmented, shapes differ, or a session is already there.
        """
        folder = Path(folder)
        volume.check()
        if not labels or len({label.value for label in labels}) != len(labels):
            raise BadInput("A session needs at least one label, and every label a number of its own.")
        strangers = {prompt.label for prompt in earlier} - {label.value for label in labels}
        if strangers:
            raise BadInput(f"Earlier prompts speak of label {min(strangers)}, which the session does not have.")
        if (folder / "session.jsonl").exists():
            raise BadInput(f"There is already a session in {folder}. Open it, or choose another folder.")
        if not 0 <= channel < volume.channels:
            raise BadInput(f"The image has {volume.channels} channels; there is no channel {channel}.")
        expected = (len(labels) + 1, *volume.grid.shape)
        if model_probabilities is not None and model_probabilities.shape != expected:
            raise BadInput(f"Probabilities of shape {model_probabilities.shape} do not fit; {expected} are needed.")
        try:
            probabilities = None
            if model_probabilities is not None:
                bytes_ = np.empty(expected, np.uint8)
                for given, stored in zip(model_probabilities, bytes_, strict=True):  # float16 is slow to compute with
                    stored[:] = np.rint(np.clip(given.astype(np.float32, copy=False), 0, 1) * 255)
                probabilities = keep_array(folder, bytes_)
            event = {
                "type": "created",
                "schema": SCHEMA,
                "grid": volume.grid.to_dict(),
                "labels": [label.model_dump(mode="json") for label in labels],
                "channel": channel,
                "image": keep_array(folder, volume.array),
                "model_probabilities": probabilities,
                "earlier": [to_dict(prompt) for prompt in earlier],
            }
            log = EventLog(folder / "session.jsonl")
        except OSError as error:
            raise RefSegError(f"The session could not be saved in {folder}: {error}.") from error
        log.append(event)
        session = cls(folder, log)
        for mark in limits:
            session.apply(mark)
        return session

    @classmethod
    def open(cls, folder: str | Path) -> Session:
        """Go on where the log ends. Raises BadInput if there is no session, RefSegError if it is damaged or in use."""
        folder = Path(folder)
        if not (folder / "session.jsonl").is_file():
            raise BadInput(f"There is no session in {folder}.")
        log = EventLog(folder / "session.jsonl")
        try:
            if not log.events:
                raise BadInput(f"The session in {folder} was never begun; remove the folder and begin it again.")
            return cls(folder, log)
        except BaseException:
            log.close()
            raise

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the log. Nothing needs saving: everything is saved already."""
        self._log.close()

    def apply(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        editable: npt.NDArray[np.bool_] | None = None,
        locked: Collection[int] = (),
    ) -> Bounds | None:
        """Take a prompt in, or several at once that undo takes back together; on the disk when this returns.

        editable: (k, j, i), where voxels may change; None: everywhere. locked: labels that neither gain nor lose one.
        Returns the box of voxels that changed, (lower, upper) in k, j, i, upper exclusive; None if none did. Raises
        BadInput if a prompt does not fit, is for a locked label or lies where nothing may change, RefSegError if it
        cannot be saved; then nothing has changed.
        """
        given = tuple(prompts) if isinstance(prompts, Sequence) else (prompts,)
        for prompt in given:
            self._known(prompt.label)
        check_allowed(given, self._labels, self.grid, self.structures, editable, locked)
        said = _Said(given, tuple(sorted(locked)), self._keep(editable))
        changed = self._do(said)
        event = {"prompts": [to_dict(p) for p in given], "locked": list(said.locked), "editable": said.editable}
        self._save({"type": "prompts"} | event, undo=self._take_back)
        self._undone.clear()
        return changed

    @property
    def undo_name(self) -> str | None:
        """What `undo` would take back, in words."""
        return self._name(self._done[-1].said) if self._done else None

    @property
    def redo_name(self) -> str | None:
        """What `redo` would bring back, in words."""
        return self._name(self._undone[-1]) if self._undone else None

    def undo(self) -> Bounds | None:
        """Take what was said last back, masks and prompts together. Returns the changed box as `apply` does."""
        if not self._done:
            raise BadInput("There is nothing to undo.")
        step = self._done[-1]
        changed = self._take_back()
        self._save({"type": "undo"}, undo=lambda: self._do(step.said))
        self._undone.append(step.said)
        return changed

    def redo(self) -> Bounds | None:
        """Bring back what was undone last."""
        if not self._undone:
            raise BadInput("There is nothing to redo.")
        changed = self._do(self._undone[-1])
        self._save({"type": "redo"}, undo=self._take_back)
        self._undone.pop()
        return changed

    def labels(self) -> LabelMap:
        """The label map now (a copy)."""
        return LabelMap(self._labels.copy(), self.grid)

    def prompts(self) -> list[Prompt]:
        """All prompts that hold, in order."""
        return [prompt for step in self._done for prompt in step.said.prompts]

    def state(self, label: int) -> LabelState:
        """What was said about a label."""
        return self._states[self._known(label)]

    def result(self, label: int) -> LabelResult:
        """Mask, confidence and estimated Dice of one label by itself, in its region."""
        state = self._states[self._known(label)]
        known = self._results.get(label)
        if known is None or known[0] is not state:
            known = self._results[label] = state, mask_of(self._scene, label, state, self._flows)
        return known[1]

    def estimated_dice(self, label: int) -> float | None:
        """Dice to be expected of a label's mask, 0..1, from how well each outlined slice is predicted by the others;
        None if nothing can be told yet."""
        return self.result(label).estimated_dice if self.state(label).outlines else None

    def suggest(
        self, label: int | None = None, axis: int | None = None, suspect: npt.NDArray | None = None
    ) -> Suggestion | str:
        """The slice worth outlining next for a label (None: for all), along an axis or the handiest one.

        Or a sentence saying that none is. suspect: (k, j, i) in 0..1, what reflection doubts.
        """
        states = self._states if label is None else {label: self.state(label)}
        return suggest_slice(self._scene, states, self.result, self._flows, axis, suspect)

    def handiest_axis(self) -> int:
        """The axis along which the fewest slices show the labels (see advice.handiest_axis)."""
        return handiest_axis(self._scene, self._states)

    def propose_limits(self, label: int, axis: int | None = None) -> Limits | None:
        """Where the label seems to begin and end along an axis, or the handiest; None if nothing tells."""
        return propose_limits(self._scene, label, self.state(label), self._flows, axis)

    def accepted(self) -> Accepted:
        """The label map with everything the replay store and the learner want to know."""
        said = {value: state for value, state in self._states.items() if state.said}
        results = {value: self.result(value) for value in said}
        return accepted_of(self.labels(), self._scene.probabilities, said, results, self.prompts(), len(self._done))

    def export_log(self) -> list[dict[str, Any]]:
        """Every event with its number and time, for an audit."""
        return list(self._log.events)

    def _known(self, label: int) -> int:
        if label not in self.structures:
            names = ", ".join(f"{v} {s.name}" for v, s in self.structures.items())
            raise BadInput(f"There is no label {label} in this session; it has {names}.")
        return label

    def _name(self, said: _Said) -> str:
        names = dict.fromkeys(name_of(prompt, self.structures[prompt.label].name) for prompt in said.prompts)
        first, *rest = names
        return f"{first} and {len(rest)} more" if rest else first

    def _keep(self, editable: npt.NDArray[np.bool_] | None) -> str | None:
        """The name under which an editable mask is on the disk; one that did not change is not written again."""
        if editable is None:
            return None
        if self._editable is None or not np.array_equal(self._editable[1], editable):
            try:
                self._editable = keep_array(self.folder, editable), editable.copy()
            except OSError as error:
                raise RefSegError(f"The editable mask could not be saved in {self.folder}: {error}.") from error
        return self._editable[0]

    def _protected(self, said: _Said, region: Region) -> npt.NDArray[np.bool_]:
        """Voxels of a region that may not change."""
        found = np.isin(self._labels[region], said.locked)
        if said.editable is not None:
            if self._editable is None or self._editable[0] != said.editable:
                self._editable = said.editable, load_array(self.folder, said.editable)
            found |= ~self._editable[1][region]
        return found

    def _save(self, event: Mapping[str, Any], undo) -> None:
        try:
            self._log.append(dict(event))
        except RefSegError:
            undo()
            raise

    def _do(self, said: _Said) -> Bounds | None:
        states, old = dict(self._states), self._labels.copy()
        regions = []
        try:
            for value in dict.fromkeys(prompt.label for prompt in said.prompts):
                regions.append(self._say(value, [p for p in said.prompts if p.label == value], said))
        except BaseException:
            self._states, self._labels = states, old
            self._limit(states)
            raise
        around = tuple(
            slice(min(r[axis].start for r in regions), max(r[axis].stop for r in regions)) for axis in range(3)
        )
        inner, bounds = difference(old[around], self._labels[around], around)
        self._done.append(_Step(said, states, inner, old[inner].copy()))
        return bounds

    def _say(self, value: int, prompts: Sequence[Prompt], said_: _Said) -> Region:
        """Change the masks as prompts of one label want it; returns where something may have changed."""
        after = self._states[self._known(value)]
        for prompt in prompts:
            after = said(self._scene, value, after, prompt, self._labels)
        limited = any(isinstance(prompt, Limits) for prompt in prompts)
        if limited:
            self._limit(self._states | {value: after})
        result = mask_of(self._scene, value, after, self._flows)
        region = result.region
        neighbors = [self.result(v) for v, state in self._states.items() if v != value and state.said]
        old = self._labels[region]
        free = (old == 0) | (old == value)
        free &= ~disputed(result, neighbors)
        for prompt in prompts:
            free |= taken_over(prompt, self._labels, result, value, self.grid)
        left = np.where(old == value, 0, old)
        if limited:  # what the limits take from this label goes to the next likeliest
            next_ = self._scene.base[region]
            left = np.where((old == value) & (next_ != value), next_, left)
        new = np.where(result.mask & free, self._labels.dtype.type(value), left)
        protected = self._protected(said_, region) | ((new != old) & np.isin(new, said_.locked))
        self._states[value] = after
        self._results[value] = after, result
        self._labels[region] = np.where(protected, old, new)
        return region

    def _take_back(self) -> Bounds | None:
        step = self._done.pop()
        self._states = dict(step.states)
        if any(isinstance(prompt, Limits) for prompt in step.said.prompts):
            self._limit(self._states)
        self._labels[step.region] = step.before
        return bounds_of(step.region)

    def _limit(self, states: Mapping[int, LabelState]) -> None:
        self._scene = self._model.limited({value: state.limits for value, state in states.items()})
        self._results.clear()


def _effective(events: Sequence[Mapping[str, Any]], undone: list[_Said]) -> list[_Said]:
    """What holds after all undos and redos; what redo would bring back is left in `undone`."""
    done: list[_Said] = []
    for line in events:
        event = line["event"]
        if event["type"] == "undo":
            undone.append(done.pop())
        elif event["type"] == "redo":
            done.append(undone.pop())
        else:
            prompts = tuple(from_dict(prompt) for prompt in event["prompts"])
            done.append(_Said(prompts, tuple(event["locked"]), event["editable"]))
            undone.clear()
    return done
