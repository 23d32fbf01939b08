"""Where cases are annotated: in a folder of this computer, or at a service (service/service_desk.py)."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from RefSegLib.models.spec import Label
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

from InteractiveLearningLib.accepting import accepted_case
from InteractiveLearningLib.guidance import Suggestion
from InteractiveLearningLib.merge import Bounds
from InteractiveLearningLib.prompts import Limits, Prompt
from InteractiveLearningLib.replay import ReplayStore
from InteractiveLearningLib.session import Session

# How sure a mask without probabilities is taken to be: corrections near a click win against it.
SURE = 0.9


class CaseSession(Protocol):
    """What Session and RemoteSession have in common: see there. id: names the session at its desk."""

    id: str
    grid: Grid
    earlier: tuple[Prompt, ...]
    undo_name: str | None
    redo_name: str | None

    def apply(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        editable: npt.NDArray[np.bool_] | None = None,
        locked: Collection[int] = (),
    ) -> Bounds | None: ...
    def undo(self) -> Bounds | None: ...
    def redo(self) -> Bounds | None: ...
    def labels(self) -> LabelMap: ...
    def prompts(self) -> list[Prompt]: ...
    def suggest(
        self, label: int | None = None, axis: int | None = None, suspect: npt.NDArray | None = None
    ) -> Suggestion | str: ...
    def handiest_axis(self) -> int: ...
    def propose_limits(self, label: int, axis: int | None = None) -> Limits | None: ...
    def estimated_dice(self, label: int) -> float | None: ...
    def export_log(self) -> list[dict[str, Any]]: ...
    def close(self) -> None: ...


class Desk(Protocol):
    """Begins, finds, keeps and drops sessions. Every method may take seconds, and raises RefSegError."""

    def begin(
        self,
        name: str,
        volume: Volume,
        labels: Sequence[Label],
        mask: npt.NDArray[np.unsignedinteger] | None,
        earlier: Sequence[Prompt],
        progress: Progress = SILENT,
    ) -> tuple[CaseSession, bool]:
        """A session, and whether it is one of this name that was cut off and goes on.

        name: 32 hex digits that stand for image and start; mask: (k, j, i) label values to begin from, None for none;
        earlier: see Session.create. Raises Cancelled.
        """
        ...

    def find(self, identifier: str, volume: Volume) -> CaseSession | None:
        """Go on with a session; None if it is over."""
        ...

    def accept(self, session: CaseSession, model: str, patient: str) -> str:
        """Keep the case for good; the session is over then. Returns the id under which it is kept."""
        ...

    def discard(self, session: CaseSession) -> None:
        """End a session for good; nothing of it is kept."""
        ...


class FolderDesk:
    """Sessions in folders under `folder`, worked on in this process: for scripts. home: of models and accepted cases
    (None: REFSEG_HOME or ~/.refseg)."""

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self._folder, self._home = Path(folder), home

    def begin(
        self,
        name: str,
        volume: Volume,
        labels: Sequence[Label],
        mask: npt.NDArray[np.unsignedinteger] | None,
        earlier: Sequence[Prompt],
        progress: Progress = SILENT,
    ) -> tuple[Session, bool]:
        """See Desk."""
        found = self.find(name, volume)
        if found is not None:
            return found, True
        progress(0.0, "Saving the image")
        probabilities = None if mask is None else certain(mask, [label.value for label in labels])
        return Session.create(self._folder / name, volume, labels, probabilities, earlier=earlier), False

    def find(self, identifier: str, _volume: Volume) -> Session | None:
        """See Desk."""
        folder = self._folder / identifier
        return Session.open(folder) if identifier and (folder / "session.jsonl").exists() else None

    def accept(self, session: Session, model: str, patient: str) -> str:
        """See Desk."""
        store = ModelStore(self._home)
        case = accepted_case(session, model, patient, store.load(model).spec)
        replay = ReplayStore(store.home)
        try:
            identifier = replay.accept(case)
        finally:
            replay.close()
        self.discard(session)
        return identifier

    def discard(self, session: Session) -> None:
        """See Desk."""
        session.close()
        shutil.rmtree(session.folder, ignore_errors=True)


def certain(mask: npt.NDArray[np.unsignedinteger], values: Sequence[int]) -> npt.NDArray[np.float16]:
    """Probabilities that say what a label map (k, j, i) says: (1 + values, k, j, i), background first."""
    found = np.full((len(values) + 1, *mask.shape), (1 - SURE) / len(values), np.float16)
    for number, value in enumerate(values, start=1):
        found[number][mask == value] = SURE
    found[0][np.isin(mask, values, invert=True)] = SURE
    return found
