"""One volume after the other, or one frame of a sequence after the other. Nothing here waits, as in a single job."""

from dataclasses import dataclass, field

import slicer
from RefSegLib.errors import RefSegError
from RefSegLib.jobs import Signal

from RefSegSlicerLib import provenance
from RefSegSlicerLib.translation import tr as _


@dataclass
class Summary:
    """done: names of what was segmented; failed: (name, sentence); left: names of what was not tried."""

    done: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    left: list = field(default_factory=list)


class Batch:
    """Many segmentations: progressed(fraction, message) of all of them, then finished(last node or None, Summary).

    work: has `names`, `start(number) -> SegmentationJob`, `took(number, node)` once that is done, and `close()`. One
    that fails is told in the summary, and the others go on; what was done when somebody cancels stays.
    """

    def __init__(self, work):
        self.progressed, self.finished, self.failed = Signal(), Signal(), Signal()
        self._work, self._summary, self._number = work, Summary(left=list(work.names)), -1
        self._job = self._node = None
        self._open, self._cancelled = True, False

    @property
    def open(self):
        """False once finished was told."""
        return self._open

    def poll(self):
        """Deliver news and begin what is next; returns `open`."""
        if self._job is not None:
            self._job.poll()
        if self._open and self._job is None:
            if self._cancelled or not self._summary.left:
                self._end()
            else:
                self._next()
        return self._open

    def cancel(self):
        """Stop; the next poll tells what was done until now."""
        self._cancelled = True
        if self._job is not None:
            self._job.cancel()

    def _next(self):
        self._number += 1
        name = self._summary.left[0]
        self._say(0.0, "")
        try:
            job = self._work.start(self._number)
        except RefSegError as error:
            self._failed(error)
            return
        job.progressed.connect(self._say)
        job.finished.connect(lambda node, done: self._took(name, node))
        job.failed.connect(self._failed)
        self._job = job

    def _say(self, fraction, message):
        names = self._work.names
        said = _("{number} of {count}, {name}").format(
            number=self._number + 1, count=len(names), name=names[self._number]
        )
        self.progressed((self._number + fraction) / len(names), f"{said}: {message}" if message else said)

    def _took(self, name, node):
        self._job, self._node = None, node
        self._summary.left.pop(0)
        self._summary.done.append(name)
        self._work.took(self._number, node)

    def _failed(self, error):
        self._job = None
        if not self._cancelled:  # else it is among what was not tried
            self._summary.failed.append((self._summary.left.pop(0), str(error)))

    def _end(self):
        self._open = False
        self._work.close()
        node = self._node if self._node is not None and self._node.GetScene() is not None else None
        self.finished(node, self._summary)


class Volumes:
    """Volumes of the scene, each into a segmentation of its own; that of an earlier run is written anew."""

    def __init__(self, logic, volumeNodes, model, **options):
        self.names = [node.GetName() for node in volumeNodes]
        self._logic, self._nodes, self._model, self._options = logic, volumeNodes, model, options

    def start(self, number):
        """Segment one of them."""
        node = self._nodes[number]
        if node.GetScene() is None:
            raise RefSegError(_("The volume was removed."))
        return self._logic.segment(node, self._model, outputNode=segmentationOf(node), **self._options)

    def took(self, number, node):
        """It is where it belongs."""

    def close(self):
        """Nothing to put back."""


class Frames:
    """All frames of the sequence that a volume shows one of, into a sequence of segmentations that follows it."""

    def __init__(self, logic, volumeNode, model, **options):
        self._logic, self._model, self._options, self._volume = logic, model, options, volumeNode
        self._browser = browserOf(volumeNode)
        self._sequence = self._browser.GetSequenceNode(volumeNode)
        self._selected = self._browser.GetSelectedItemNumber()
        self._browser.SetPlaybackActive(False)
        unit = self._sequence.GetIndexUnit()
        values = [self._sequence.GetNthIndexValue(n) for n in range(self._sequence.GetNumberOfDataNodes())]
        self.names = [f"{self._sequence.GetIndexName()} {value} {unit}".strip() for value in values]
        self._values, self._output, self._results = values, None, None

    def start(self, number):
        """Segment one of them, as it is now: its voxels are those of the next one later."""
        self._select(number)
        return self._logic.segment(
            self._volume,
            self._model,
            outputNode=self._output,
            frame=True,
            ready=lambda: self._select(number),
            **self._options,
        )

    def took(self, number, node):
        """Keep it under the index of its frame."""
        if self._results is None:
            name = _("{name} segmentations").format(name=self._volume.GetName())
            self._results = self._volume.GetScene().AddNewNodeByClass("vtkMRMLSequenceNode", name)
            self._results.SetIndexName(self._sequence.GetIndexName())
            self._results.SetIndexUnit(self._sequence.GetIndexUnit())
            self._results.SetIndexType(self._sequence.GetIndexType())
        self._output = node
        self._results.SetDataNodeAtValue(node, self._values[number])

    def close(self):
        """Let the segmentation follow the browser, and select the frame that was shown before."""
        if not self._volume.GetScene() or not self._browser.GetScene():
            return
        if self._results is not None:
            modified = self._browser.StartModify()  # in between, the browser would make a segmentation of its own
            try:
                _logic().AddSynchronizedNode(self._results, self._output, self._browser)
                # A frame without a result must not be shown, and kept, with the mask of the one before.
                self._browser.SetMissingItemMode(self._results, self._browser.MissingItemSetToDefault)
                self._browser.SetSaveChanges(self._results, True)  # what is painted into a frame stays in it
            finally:
                self._browser.EndModify(modified)
        self._select(max(self._selected, 0))

    def _select(self, number):
        if self._browser.GetScene() is None or self._volume.GetScene() is None:
            raise RefSegError(_("The sequence was removed."))
        self._browser.SetSelectedItemNumber(number)
        _logic().UpdateProxyNodesFromSequences(self._browser)


def browserOf(volumeNode):
    """The sequence browser whose frames a volume shows; None for any other volume."""
    logic = _logic()
    browser = None if logic is None or volumeNode is None else logic.GetFirstBrowserNodeForProxyNode(volumeNode)
    return browser if browser is not None and browser.GetSequenceNode(volumeNode) is not None else None


def segmentationOf(volumeNode):
    """What an earlier run has made of a volume; None if there is nothing."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", volumeNode.GetScene()):
        reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        if reference is volumeNode and provenance.stamped(node) is not None and not node.GetHideFromEditors():
            return node
    return None


def _logic():
    sequences = getattr(slicer.modules, "sequences", None)
    return None if sequences is None else sequences.logic()
