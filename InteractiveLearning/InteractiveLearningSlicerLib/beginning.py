"""How a session begins: from the segments as they are and what was said about them earlier, or where it was cut off."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from RefSegSlicerLib import mrml

from InteractiveLearningSlicerLib import memory, segments
from InteractiveLearningSlicerLib.steps import digest

# How sure a mask without probabilities is taken to be: corrections near a click win against it.
DRAWN = 0.9
# An attribute of a segmentation that a session is at work on: the session's name and the digest of its mask.
SESSION = "RefSeg.Session"


@dataclass(frozen=True)
class Begun:
    """session; labels: RefSegLib Labels by segment id; shown: label map (k, j, i) that the segments show; resumed:
    True if a session that was cut off goes on; overlap: how many voxels are in more than one segment; unreadable: names
    of segments whose prompts of earlier could not be read."""

    session: object
    labels: dict
    shown: np.ndarray
    resumed: bool
    overlap: int
    unreadable: list


def begin(volumeNode, segmentationNode, folder, spec=None, probabilities=None):
    """A session about the segments of a segmentation; see SessionLogic.startSession."""
    from InteractiveLearningLib.session import Session

    volume = mrml.volumeFromNode(volumeNode)
    labels = segments.labelsOf(segmentationNode, spec)
    values = valuesOf(labels)
    mrml.prepareSegmentation(segmentationNode, volumeNode)
    shown = segments.shownLabels(segmentationNode, volumeNode, values)
    covered = sum(int(mrml.segmentArray(segmentationNode, identifier, volumeNode).sum()) for identifier in values)
    earlier, unreadable = memory.recall(segmentationNode, shown, volume.grid, mrml.ownGrid(volumeNode), values)
    if probabilities is None and shown.any():
        probabilities = _certain(shown, list(values.values()))
    name, _, mask = (segmentationNode.GetAttribute(SESSION) or "").partition(" ")
    if mask != digest(shown).hex() or not (Path(folder) / name / "session.jsonl").exists():
        name = _fingerprint(volume, labels, probabilities, earlier)
    place = Path(folder) / name
    resumed = (place / "session.jsonl").exists()
    if resumed:
        session = Session.open(place)
    else:
        session = Session.create(place, volume, list(labels.values()), probabilities, earlier=earlier)
    return Begun(session, labels, shown, resumed, covered - int(np.count_nonzero(shown)), unreadable)


def valuesOf(labels):
    """Label value by segment id."""
    return {identifier: label.value for identifier, label in labels.items()}


def _certain(labels, values):
    """Probabilities that say what a label map says: (1 + values, k, j, i)."""
    found = np.stack([np.isin(labels, values, invert=True), *(labels == value for value in values)])
    return np.where(found, np.float16(DRAWN), np.float16((1 - DRAWN) / len(values)))


def _fingerprint(volume, labels, probabilities, earlier):
    """A name for a session: the same image, and the same masks and prompts to start from, give the same."""
    from InteractiveLearningLib.prompts import to_dict

    about = [volume.grid.to_dict(), [(label.value, label.name) for label in labels.values()]]
    digest = hashlib.sha256(repr(about).encode())
    digest.update(np.ascontiguousarray(volume.array))
    if probabilities is not None:
        digest.update(np.ascontiguousarray(probabilities))
    if earlier:
        digest.update(repr([to_dict(prompt) for prompt in earlier]).encode())
    return digest.hexdigest()[:32]
