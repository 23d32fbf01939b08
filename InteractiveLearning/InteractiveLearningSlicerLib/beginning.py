"""How a session begins: from the segments as they are and what was said about them earlier, or where it was cut off."""

import hashlib
from dataclasses import dataclass

import numpy as np
from RefSegSlicerLib import mrml

from InteractiveLearningSlicerLib import memory, segments
from InteractiveLearningSlicerLib.steps import digest

# An attribute of a segmentation that a session is at work on: the session's id and the digest of its mask.
SESSION = "RefSeg.Session"


@dataclass(frozen=True)
class Begun:
    """session; labels: RefSegLib Labels by segment id; shown: label map (k, j, i) that the segments show; planes:
    (name of the anatomical plane, number of slices) along each array axis; resumed: True if a session that was cut off
    goes on; overlap: how many voxels are in more than one segment; unreadable: names of segments whose prompts of
    earlier could not be read."""

    session: object
    labels: dict
    shown: np.ndarray
    planes: list
    resumed: bool
    overlap: int
    unreadable: list


def begin(volumeNode, segmentationNode, desk, known, opened, progress):
    """A turn (turns.py) that begins a session about the segments of a segmentation; its value is Begun.

    desk: see InteractiveLearningLib/desk.py; known: label values of the model that will learn, by name; opened: called
    with the session in the thread, as soon as there is one.
    """
    volume = mrml.volumeFromNode(volumeNode)
    labels = segments.labelsOf(segmentationNode, known)
    mrml.prepareSegmentation(segmentationNode, volumeNode)
    parts = segments.snapshot(segmentationNode, volumeNode, valuesOf(labels))
    stored = memory.storedOf(segmentationNode, valuesOf(labels))
    mark = segmentationNode.GetAttribute(SESSION) or ""
    own, name = mrml.ownGrid(volumeNode), volumeNode.GetName()
    return (yield lambda: _begun(volume, name, labels, parts, stored, mark, own, desk, opened, progress))


def _begun(volume, name, labels, parts, stored, mark, own, desk, opened, progress):
    """What of it takes time. stored: what the segments' tags say; mark: the attribute; own: the volume's own grid."""
    from InteractiveLearningLib.planes import plane_name

    volume.check(f"The volume '{name}'")
    shown = segments.labelMap(parts, volume.grid.shape)
    overlap = sum(part.count() for part in parts) - int(np.count_nonzero(shown))
    earlier, unreadable = memory.recall(stored, shown, volume.grid, own)
    identifier, _, mask = mark.partition(" ")
    session = desk.find(identifier, volume) if mask and mask == digest(shown).hex() else None
    resumed = session is not None
    if session is None:
        start = shown if shown.any() else None
        called = _fingerprint(volume, labels, start, earlier)
        session, resumed = desk.begin(called, volume, list(labels.values()), start, earlier, progress)
    opened(session)
    planes = [(plane_name(volume.grid, axis), count) for axis, count in enumerate(volume.grid.shape)]
    return Begun(session, labels, shown, planes, resumed, overlap, unreadable)


def valuesOf(labels):
    """Label value by segment id."""
    return {identifier: label.value for identifier, label in labels.items()}


def _fingerprint(volume, labels, mask, earlier):
    """A name for a session: the same image, and the same masks and prompts to start from, give the same."""
    from InteractiveLearningLib.prompts import to_dict

    about = [volume.grid.to_dict(), [(label.value, label.name) for label in labels.values()]]
    found = hashlib.sha256(repr(about).encode())
    found.update(np.ascontiguousarray(volume.array))
    if mask is not None:
        found.update(np.ascontiguousarray(mask))
    if earlier:
        found.update(repr([to_dict(prompt) for prompt in earlier]).encode())
    return found.hexdigest()[:32]
