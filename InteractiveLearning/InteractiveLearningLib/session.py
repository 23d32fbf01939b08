"""One case being annotated: an append-only log of what was said, and the label map that follows from it.

A session is a folder:

    session.jsonl    one event a line (see eventlog.py); the first names image and labels, then prompts and undos
    arrays/abcd…     the image and the model's probabilities, compressed, named by the hash of their content

The state is a fold over the events. Nothing else is saved: the log is the autosave, and replaying it gives the same
mask bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume
from scipy import ndimage

from InteractiveLearningLib.arrays import keep_array, load_array
from InteractiveLearningLib.eventlog import EventLog
from InteractiveLearningLib.fold import main_axis, mask_of, said, working_region
from InteractiveLearningLib.guidance import Suggestion, next_slice
from InteractiveLearningLib.merge import Bounds, bounds_of, difference, disputed, taken_over
from InteractiveLearningLib.prompts import Limits, Outline, Prompt, from_dict, name_of, to_dict
from InteractiveLearningLib.propagation import FlowCache, propagate
from InteractiveLearningLib.scene import LabelResult, LabelState, Region, scene_of

SCHEMA = 1


@dataclass(frozen=True)
class Accepted:
    """What the replay store wants to know of a session (see accepted.py).

    confidence: float32 (k, j, i) in 0..1. annotated: (axis, index) of outlined slices. boundary_pixels: pixels on the
    border of what was drawn (the paper's measure of effort); effort: their length in mm. interactions: prompts that
    were not undone.
    """

    labels: LabelMap
    confidence: npt.NDArray[np.float32]
    annotated: tuple[tuple[int, int], ...]
    boundary_pixels: int
    effort: float
    interactions: int


@dataclass(frozen=True)
class _Step:
    """A prompt that was applied, and what takes it back: the label's state and the voxels of `region` before it."""

    prompt: Prompt
    state: LabelState
    region: Region
    before: npt.NDArray


class Session:
    """A case being annotated. Make one with `create` or `open`; close it, or use it in a `with`.

    grid: of the image and the label map. structures: the labels by value. channel: of the image, that slices are
    registered by.
    """

    def __init__(self, folder: Path, log: EventLog) -> None:
        created = log.events[0]["event"]
        if created.get("schema") != SCHEMA:
            raise RefSegError(f"The session in {folder} was written by a newer RefSeg. Update this one.")
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
        self._done: list[_Step] = []
        self._undone: list[Prompt] = []
        self._flows = FlowCache()
        self._results: dict[int, tuple[LabelState, LabelResult]] = {}
        for prompt in _effective(log.events[1:], self._undone):
            self._do(prompt)

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
    ) -> Session:
        """Begin a session in a new or empty folder.

        model_probabilities: (outputs, k, j, i) in 0..1 on the grid of the volume, background first, then one per label
        in order; None for a structure no model knows. limits: marks that are known from the start.
        Raises BadInput if the image cannot be segmented, shapes differ, or a session is already there.
        """
        folder = Path(folder)
        volume.check()
        if not labels or len({label.value for label in labels}) != len(labels):
            raise BadInput("A session needs at least one label, and every label a number of its own.")
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
                bytes_ = np.rint(np.clip(model_probabilities, 0, 1) * 255).astype(np.uint8)
                probabilities = keep_array(folder, bytes_)
            event = {
                "type": "created",
                "schema": SCHEMA,
                "grid": volume.grid.to_dict(),
                "labels": [label.model_dump(mode="json") for label in labels],
                "channel": channel,
                "image": keep_array(folder, volume.array),
                "model_probabilities": probabilities,
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

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the log. Nothing needs saving: everything is saved already."""
        self._log.close()

    def apply(self, prompt: Prompt) -> Bounds | None:
        """Take a prompt in; it is on the disk when this returns.

        Returns the box of voxels that changed, (lower, upper) in k, j, i, upper exclusive; None if none did. Raises
        BadInput if the prompt does not fit, RefSegError if it cannot be saved; then nothing has changed.
        """
        changed = self._do(prompt)
        self._save({"type": "prompt", "prompt": to_dict(prompt)}, undo=self._take_back)
        self._undone.clear()
        return changed

    @property
    def undo_name(self) -> str | None:
        """What `undo` would take back, in words."""
        return self._name(self._done[-1].prompt) if self._done else None

    @property
    def redo_name(self) -> str | None:
        """What `redo` would bring back, in words."""
        return self._name(self._undone[-1]) if self._undone else None

    def undo(self) -> Bounds | None:
        """Take the last prompt back, mask and prompt together. Returns the changed box as `apply` does."""
        if not self._done:
            raise BadInput("There is nothing to undo.")
        step = self._done[-1]
        changed = self._take_back()
        self._save({"type": "undo"}, undo=lambda: self._do(step.prompt))
        self._undone.append(step.prompt)
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
        return [step.prompt for step in self._done]

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

    def suggest(self, label: int, axis: int | None = None, suspect: npt.NDArray | None = None) -> Suggestion | str:
        """The slice worth outlining next for a label, or a sentence saying that none is. See guidance.next_slice."""
        state = self.state(label)
        axis = main_axis(self.grid, state) if axis is None else axis
        limits = state.limits.get(axis)
        # The whole length along the axis, but no wider than the structure: slices keep their numbers.
        region = tuple(
            slice(0, n) if a == axis else s
            for a, (s, n) in enumerate(zip(working_region(self._scene, label, state), self.grid.shape, strict=True))
        )
        if any(s.start == s.stop for s in region):
            region = tuple(slice(0, n) for n in self.grid.shape)
        plane = tuple(s for a, s in enumerate(region) if a != axis)
        outlines = {i: m[plane] for (a, i), m in state.outlines.items() if a == axis}
        image, proxy = self._scene.image[region], None
        if outlines:
            settings = {"limits": limits, "spacing": self.grid.spacing, "cache": self._flows}
            proxy = propagate(image, axis, outlines, **settings).probability
        doubts = None if suspect is None else suspect[region]
        model = self._scene.prior(label, region)
        found = next_slice(axis, tuple(outlines), proxy, model, limits=limits, suspect=doubts, shape=image.shape)
        if isinstance(found, str):
            return found
        residual = np.zeros(self.grid.shape, np.float32)
        residual[region] = found.residual
        return replace(found, residual=residual)

    def accepted(self) -> Accepted:
        """The label map with everything the replay store and the learner want to know."""
        confidence = np.zeros(self.grid.shape, np.float32)
        if self._scene.probabilities is not None:
            largest = self._scene.probabilities.max(axis=0).astype(np.float32) / 255
            confidence = np.clip(largest - 0.5, 0, None)
        background = np.ones(self.grid.shape, np.float32)
        annotated: list[tuple[int, int]] = []
        pixels, length = 0, 0.0
        for value, state in self._states.items():
            if not state.said:
                continue
            result = self.result(value)
            mine = self._labels[result.region] == value
            confidence[result.region][mine] = result.confidence[mine]
            whole = np.zeros(self.grid.shape, np.float32)
            whole[result.region] = result.confidence
            background = np.minimum(background, whole)
            annotated += [key for key in state.outlines if key not in annotated]
        if any(state.said for state in self._states.values()):
            empty = self._labels == 0
            confidence[empty] = np.maximum(confidence, background)[empty]
        for step in self._done:
            if isinstance(step.prompt, Outline):
                drawn = int(np.count_nonzero(border(step.prompt.mask)))
                pixels += drawn
                length += drawn * float(np.mean([s for a, s in enumerate(self.grid.spacing) if a != step.prompt.axis]))
        return Accepted(self.labels(), confidence, tuple(annotated), pixels, length, len(self._done))

    def export_log(self) -> list[dict[str, Any]]:
        """Every event with its number and time, for an audit."""
        return list(self._log.events)

    def _known(self, label: int) -> int:
        if label not in self.structures:
            names = ", ".join(f"{v} {s.name}" for v, s in self.structures.items())
            raise BadInput(f"There is no label {label} in this session; it has {names}.")
        return label

    def _name(self, prompt: Prompt) -> str:
        return name_of(prompt, self.structures[prompt.label].name)

    def _save(self, event: Mapping[str, Any], undo) -> None:
        try:
            self._log.append(dict(event))
        except RefSegError:
            undo()
            raise

    def _do(self, prompt: Prompt) -> Bounds | None:
        value = self._known(prompt.label)
        before = self._states[value]
        after = said(self._scene, value, before, prompt, self._labels)
        if isinstance(prompt, Limits):
            self._limit(self._states | {value: after})
        result = mask_of(self._scene, value, after, self._flows)
        region = result.region
        neighbors = [self.result(v) for v, state in self._states.items() if v != value and state.said]
        old = self._labels[region]
        free = (old == 0) | (old == value)
        free &= ~disputed(result, neighbors)
        free |= taken_over(prompt, self._labels, result, value, self.grid)
        left = np.where(old == value, 0, old)
        if isinstance(prompt, Limits):  # what the limits take from this label goes to the next likeliest
            next_ = self._scene.base[region]
            left = np.where((old == value) & (next_ != value), next_, left)
        new = np.where(result.mask & free, self._labels.dtype.type(value), left)
        inner, bounds = difference(old, new, region)
        self._done.append(_Step(prompt, before, inner, self._labels[inner].copy()))
        self._states[value] = after
        self._results[value] = after, result
        self._labels[region] = new
        return bounds

    def _take_back(self) -> Bounds | None:
        step = self._done.pop()
        self._states[step.prompt.label] = step.state
        if isinstance(step.prompt, Limits):
            self._limit(self._states)
        self._labels[step.region] = step.before
        return bounds_of(step.region)

    def _limit(self, states: Mapping[int, LabelState]) -> None:
        self._scene = self._model.limited({value: state.limits for value, state in states.items()})
        self._results.clear()


def border(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a mask next to something outside of it."""
    return mask & ~ndimage.binary_erosion(mask)


def _effective(events: Sequence[Mapping[str, Any]], undone: list[Prompt]) -> list[Prompt]:
    """The prompts that hold after all undos and redos; those that redo would bring back are left in `undone`."""
    done: list[Prompt] = []
    for line in events:
        event = line["event"]
        if event["type"] == "undo":
            undone.append(done.pop())
        elif event["type"] == "redo":
            done.append(undone.pop())
        else:
            done.append(from_dict(event["prompt"]))
            undone.clear()
    return done
