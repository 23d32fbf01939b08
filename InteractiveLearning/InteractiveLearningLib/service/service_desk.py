"""A desk at a service: sessions are worked on there, and outlive this program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from RefSegLib.models.spec import Label
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.volume import Volume

from InteractiveLearningLib.prompts import Prompt
from InteractiveLearningLib.service.client import Client
from InteractiveLearningLib.service.failures import NotFound
from InteractiveLearningLib.service.remote_session import RemoteSession


class Reaching(Protocol):
    """LocalService or SiteService: gives a client, and another if the service had to be started again."""

    def client(self, progress: Progress = SILENT) -> Client: ...


class ServiceDesk:
    """See Desk (desk.py)."""

    def __init__(self, service: Reaching) -> None:
        self._service = service

    def begin(
        self,
        name: str,
        volume: Volume,
        labels: Sequence[Label],
        mask: npt.NDArray[np.unsignedinteger] | None,
        earlier: Sequence[Prompt],
        progress: Progress = SILENT,
    ) -> tuple[RemoteSession, bool]:
        """See Desk."""
        client, reach = self._service.client(progress), self._service.client
        about = {"earlier": earlier, "name": name, "reach": reach, "progress": progress}
        session = RemoteSession.create(client, volume, labels, mask, **about)
        return session, session.resumed

    def find(self, identifier: str, volume: Volume) -> RemoteSession | None:
        """See Desk."""
        if not identifier:
            return None
        try:
            return RemoteSession.open(self._service.client(), identifier, volume, reach=self._service.client)
        except NotFound:
            return None

    def accept(self, session: RemoteSession, model: str, patient: str) -> str:
        """See Desk."""
        return session.accept(model, patient)

    def discard(self, session: RemoteSession) -> None:
        """See Desk."""
        session.discard()
