"""Where the cases of a worklist come from: a folder of images, the volumes of the scene, or a site's server.

What they do may take long and is done in a thread, except by SceneCases, which works on MRML and is asked in the main
thread (`inScene`). Where `leased`, a case is kept from others while it is open: `renew` and `leave` it.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import slicer
from RefSegLib.errors import RefSegError
from RefSegLib.progress import Progress
from RefSegSlicerLib import doubt
from RefSegSlicerLib.translation import tr as _

from InteractiveLearningSlicerLib.volumes import Image

TODO, ACCEPTED, REJECTED, SKIPPED = "todo", "accepted", "rejected", "skipped"
STATE = "RefSeg.Worklist"  # attribute of a volume of the scene: what was decided about it


@dataclass(frozen=True)
class Case:
    """One image of a worklist. key: by which its source knows it; patient: "" until it is opened, or if nothing tells;
    other: name of somebody else who works on it now."""

    key: str
    name: str
    state: str = TODO
    patient: str = ""
    other: str = ""


class FolderCases:
    """The images in a folder; what was decided about them is kept under `home`, never in the folder itself."""

    inScene = leased = False

    def __init__(self, folder, home):
        self.folder, self._home = Path(folder), Path(home) / "RefSegWorklists"
        self._lock, self._found, self._marks = threading.Lock(), {}, None

    def cases(self, progress):
        """All cases. Raises RefSegError if the folder, or what was decided, cannot be read."""
        from InteractiveLearningLib.worklist import Marks, cases_in

        progress(0.0, _("Looking through the folder"))
        found = {case.key: case for case in cases_in(self.folder)}
        with self._lock:
            self._found = found
            self._marks = self._marks or Marks(self._home, f"folder {self.folder.resolve()}")
            return [Case(key, case.name, self._marks.state(key)) for key, case in found.items()]

    def load(self, cases, known, progress):
        """(the first case, its Image or None if its key is in `known`). Raises BadInput for what is no volume."""
        from InteractiveLearningLib.worklist import patient_at
        from RefSegLib.volume.io import read_image

        case = cases[0]
        found = self._found[case.key]
        progress(0.1, _("Reading {name}").format(name=case.name))
        image = None if case.key in known else Image(read_image(found.path))
        progress(0.9, _("Reading {name}").format(name=case.name))
        return replace(case, patient=patient_at(found)), image

    def mark(self, case, state, progress):
        """Keep what was decided."""
        with self._lock:
            self._marks.set(case.key, state)


class SceneCases:
    """The scalar volumes of a scene; what was decided is kept in the nodes, so it goes with the scene."""

    inScene, leased = True, False

    def __init__(self, scene):
        self.scene = scene

    def cases(self, progress):
        """All volumes that people can see, but for label maps and maps of doubt."""
        from RefSegLib.training.split import patient_of

        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", self.scene)
        return [
            Case(node.GetID(), node.GetName(), node.GetAttribute(STATE) or TODO, patient_of(node.GetName()))
            for node in nodes
            if node.GetClassName() == "vtkMRMLScalarVolumeNode"
            and not node.GetHideFromEditors()
            and node.GetAttribute(doubt.IMAGE) is None
        ]

    def mark(self, case, state, progress):
        """Keep what was decided, if the volume is still there."""
        node = self.scene.GetNodeByID(case.key)
        if node is not None:
            node.SetAttribute(STATE, state)


class ServerCases:
    """The worklist of a service (see connection.open_service), which gives each case to one person."""

    inScene, leased = False, True

    def __init__(self, service):
        self._service = service

    def cases(self, progress):
        """All cases. Raises RefSegError if the server does not answer, or has no worklist."""
        return [
            Case(case["id"], case["name"], case["state"], "", case["by"] if case["held"] and not case["mine"] else "")
            for case in self._service.client(progress).worklist()
        ]

    def load(self, cases, known, progress):
        """(the first case that nobody else has, its Image or None if its key is in `known`)."""
        from InteractiveLearningLib.service.failures import Elsewhere

        client = self._service.client(progress)
        for number, case in enumerate(cases, start=1):
            try:
                taken = client.worklist_state(case.key, "take")
            except Elsewhere:
                if number == len(cases):
                    raise
                continue
            case = replace(case, patient=taken["patient"])
            if case.key in known:
                return case, None
            try:
                return case, Image(client.worklist_volume(case.key, progress))
            except RefSegError:
                with suppress(RefSegError):
                    client.worklist_state(case.key, "leave")
                raise
        raise ValueError("no case was given")

    def mark(self, case, state, progress):
        """Tell the server what was decided. Raises Denied if the person's role does not allow it."""
        self._service.client(progress).worklist_state(case.key, state)

    def renew(self, case, progress):
        """Keep the case from others for another while."""
        self._service.client(progress).worklist_state(case.key, "take")

    def leave(self, case, progress):
        """Let others have the case, as it is."""
        self._service.client(progress).worklist_state(case.key, "leave")

    def close(self, case, progress):
        """Need the server no more; case: one that others may have, or None."""
        try:
            if case is not None:
                self.leave(case, progress)
        finally:
            self._service.leave()


def inThread(work, *values):
    """`work(*values, progress)` as Job wants it."""
    return lambda report, cancelled: work(*values, Progress(report, cancelled))
