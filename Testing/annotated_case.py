"""A small case on an oblique grid: two halves of an ellipsoid, an image of them, and a model that sees them shifted."""

from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from InteractiveLearningLib.prompts import Click, Outline
from InteractiveLearningLib.session import Session
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid
from scipy import ndimage

SHAPE = (20, 40, 44)
OBLIQUE = Grid(SHAPE, (3.0, 1.0, 1.2), ((0.0, 0.6, 0.8), (0.0, -0.8, 0.6), (1.0, 0.0, 0.0)), (-20.0, 30.0, 7.0))
LABELS = [Label(value=1, name="left part", color=(1, 0, 0)), Label(value=2, name="right part", color=(0, 1, 0))]
DEPTH, ROW, COLUMN = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(float)
WHOLE = ((DEPTH - 10) / 8) ** 2 + ((ROW - 20) / 11) ** 2 + ((COLUMN - 22) / 14) ** 2 < 1
TRUTH = np.where(WHOLE, np.where(COLUMN < 22, 1, 2), 0).astype(np.uint8)
IMAGE = (60.0 * (TRUTH == 1) + 120 * (TRUTH == 2) + 5 * np.random.default_rng(0).normal(size=SHAPE)).astype(np.float32)


def model_probabilities(shift=3):
    """A model that sees everything `shift` voxels too far along j."""
    masks = np.stack([np.roll(TRUTH, shift, axis=1) == v for v in (0, 1, 2)])
    soft = np.stack([ndimage.gaussian_filter(m.astype(np.float32), 1) for m in masks])
    return soft / soft.sum(axis=0)


def click(k, j, i, positive, label, axis=0):
    return Click(tuple(OBLIQUE.to_world((k, j, i))), positive, label, axis)


def outline(index, label, axis=0):
    return Outline.on(OBLIQUE, axis, index, np.take(TRUTH, index, axis) == label, label)


def apply_forever(folder: Path, pipe: Connection) -> None:
    """A process to be killed: applies and undoes prompts for ever and sends how many events the log then holds."""
    session = Session.open(folder)
    while True:
        n = len(session.export_log())
        if len(session.prompts()) > n % 6:
            session.undo()
        else:
            session.apply(outline(3 + n % 14, 1) if n % 3 else click(10, 5 + n % 30, 18, bool(n % 2), 1))
        pipe.send_bytes(str(n + 1).encode())
