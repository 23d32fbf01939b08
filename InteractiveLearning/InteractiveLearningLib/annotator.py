"""A robot that annotates: it knows the truth of the case it plays, and nothing else.

Perfect or imprecise, always seeded. It marks limits, outlines the slices it is asked for, or clicks into the middle of
the largest error, as in the interactive segmentation literature; the tool under test never sees the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from RefSegLib.errors import BadInput
from RefSegLib.quality.metrics import dice
from RefSegLib.volume.volume import LabelMap
from scipy import ndimage

from InteractiveLearningLib.outcome import border
from InteractiveLearningLib.prompts import Click, Limits, Outline
from InteractiveLearningLib.scene import on_slice
from InteractiveLearningLib.session import Session

Kind = Literal["clicks", "slices"]
# An imprecise hand: clicks land up to this many voxels off along every axis of the slice, and some have the wrong sign.
JITTER = 2
WRONG_SIGN = 0.05
# The border an imprecise hand draws wanders by so many pixels (standard deviation), smoothly.
WANDER = 0.55


@dataclass
class Effort:
    """What it cost: pixels of border drawn, prompts given."""

    boundary_pixels: int = 0
    interactions: int = 0


@dataclass
class Annotator:
    """Plays the person who knows `truth`. imprecise: with a real person's hand. Every number comes from `seed`."""

    truth: LabelMap
    imprecise: bool = False
    seed: int = 0
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def limits(self, label: int, axis: int) -> Limits | None:
        """Marks of the first and last slice of a label; None if the truth does not hold it. Costs two interactions."""
        others = tuple(a for a in range(3) if a != axis)
        at = np.nonzero((self.truth.array == label).any(axis=others))[0]
        if not at.size:
            return None
        self.effort.interactions += 2
        return Limits.on(self.truth.grid, axis, int(at[0]), int(at[-1]), label)

    def outline(self, label: int, axis: int, index: int) -> Outline:
        """The slice as this person draws it."""
        mask = self.truth.array[on_slice(axis, index)] == label
        if self.imprecise and mask.any():
            mask = self._wandering(mask)
        self.effort.boundary_pixels += int(np.count_nonzero(border(mask)))
        self.effort.interactions += 1
        return Outline.on(self.truth.grid, axis, index, mask, label)

    def click(self, shown: npt.NDArray, labels: Sequence[int]) -> Click | None:
        """A click into the middle of the largest error of the shown label map (k, j, i); None if there is no error.

        The error is looked for in whole; the click is made in the slice view in which the error is largest.
        """
        largest: tuple[int, int, bool, npt.NDArray] | None = None
        for label in labels:
            mine, true = shown == label, self.truth.array == label
            for positive, wrong in ((True, true & ~mine), (False, mine & ~true)):
                # What belongs to another label is corrected by clicking that label there.
                wrong = wrong & ~np.isin(self.truth.array, labels) if not positive else wrong
                parts, count = ndimage.label(wrong)
                if not count:
                    continue
                sizes = np.bincount(parts.ravel())[1:]
                if largest is None or sizes.max() > largest[0]:
                    largest = int(sizes.max()), label, positive, parts == int(sizes.argmax()) + 1
        if largest is None:
            return None
        _, label, positive, part = largest
        depth = ndimage.distance_transform_edt(np.pad(part, 1), sampling=self.truth.grid.spacing)[1:-1, 1:-1, 1:-1]
        voxel = np.asarray(np.unravel_index(int(depth.argmax()), depth.shape))
        axis = max(range(3), key=lambda a: int(np.count_nonzero(part[on_slice(a, int(voxel[a]))])))
        if self.imprecise:
            moved = voxel + self._random.integers(-JITTER, JITTER + 1, 3)
            moved[axis] = voxel[axis]
            voxel = np.clip(moved, 0, np.asarray(part.shape) - 1)
            if self._random.random() < WRONG_SIGN:
                positive = not positive
        self.effort.interactions += 1
        return Click(tuple(self.truth.grid.to_world(voxel)), positive, label, axis)

    def _wandering(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        distance = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
        noise = ndimage.gaussian_filter(self._random.normal(size=mask.shape), 3)
        drawn = distance - np.where(mask, 0.5, -0.5) + WANDER * noise / max(float(noise.std()), 1e-6) > 0
        return drawn if drawn.any() else mask


@dataclass(frozen=True)
class Progression:
    """How a session went. dice[n]: {label: Dice} after n interactions that count (limits and outlines of one slice are
    one each). said: what was done, in words."""

    dice: list[dict[int, float]]
    said: list[str]
    effort: Effort

    @property
    def mean(self) -> list[float]:
        """Mean Dice over labels, per interaction, the first before any."""
        return [float(np.mean(list(d.values()))) for d in self.dice]


def annotate(
    truth: LabelMap,
    session: Session,
    budget: int,
    *,
    prompts: Kind = "clicks",
    imprecise: bool = False,
    seed: int = 0,
    axis: int | None = None,
    limits: bool = True,
) -> Progression:
    """Let a robot annotate a session with at most `budget` interactions, and score the label map after each.

    truth: what the robot knows, on the grid of the session. prompts: "clicks" into the largest error, or "slices":
    outlines of the slice the session suggests, all labels of the slice being one interaction. axis: that slices are
    outlined along, None: the session's choice. limits: mark the ends first (slices only).
    Labels that the truth does not hold are left alone. Raises BadInput if the grids differ.
    """
    if not truth.grid.same_as(session.grid):
        raise BadInput("The truth that the robot annotator plays lies on another grid than the session.")
    robot = Annotator(truth, imprecise, seed)
    labels = [v for v in session.structures if (truth.array == v).any()]
    if not labels:
        raise BadInput("The truth that the robot annotator plays holds none of the session's labels.")
    scores, done = [_scores(session, truth, labels)], ["the model alone"]
    if prompts == "slices":
        axis = session.handiest_axis() if axis is None else axis
        if limits:
            marks = [robot.limits(label, axis) for label in labels]
            for mark in marks:
                session.apply(mark)
            scores.append(_scores(session, truth, labels))
            done.append("limits")
    for _ in range(budget):
        said = _click(robot, session, labels) if prompts == "clicks" else _slice(robot, session, labels, axis)
        if said is None:
            break
        scores.append(_scores(session, truth, labels))
        done.append(said)
    return Progression(scores, done, robot.effort)


def _click(robot: Annotator, session: Session, labels: Sequence[int]) -> str | None:
    click = robot.click(session.labels().array, labels)
    if click is None:
        return None
    session.apply(click)
    return f"{'positive' if click.positive else 'negative'} click for {session.structures[click.label].name}"


def _slice(robot: Annotator, session: Session, labels: Sequence[int], axis: int) -> str | None:
    """Outline every label in the slice that the session asks for."""
    suggestion = session.suggest(axis=axis)
    if isinstance(suggestion, str):
        return None
    robot.effort.interactions -= len(labels) - 1
    session.apply([robot.outline(label, axis, suggestion.index) for label in labels])
    return f"slice {suggestion.index}"


def _scores(session: Session, truth: LabelMap, labels: Sequence[int]) -> dict[int, float]:
    shown = session.labels().array
    return {label: dice(shown == label, truth.array == label) for label in labels}
