"""Segmenting by a service: a Runner (RefSegLib/jobs.py) whose work is done elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.jobs import Job, Segmented
from RefSegLib.models.spec import Label
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.volume import Volume

from InteractiveLearningLib.service.client import Client
from InteractiveLearningLib.service.failures import NotFound, Unreachable
from InteractiveLearningLib.service.wire import ArrayBox, label_map, unpack_box

# What of the whole is sending the image.
SENT = 0.2
# How long an answer waits for news; canceling waits for it.
NEWS_SECONDS = 0.25
LEAVE_SECONDS = 2.0
Found = TypeVar("Found")


class RemoteRunner:
    """Segments by the service of a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def segment(
        self,
        volume: Volume,
        model: str,
        *,
        reflect: bool | None = None,
        roi: Sequence[int] | None = None,
        suspect: bool = False,
    ) -> Job:
        """Start what `segmented` does in a thread of its own."""

        def work(report: Callable[[float, str], None], cancelled: Callable[[], bool]) -> Segmented:
            progress = Progress(report, cancelled)
            return self.segmented(volume, model, reflect=reflect, roi=roi, suspect=suspect, progress=progress)

        return Job(work)

    def segmented(
        self,
        volume: Volume,
        model: str,
        *,
        reflect: bool | None = None,
        roi: Sequence[int] | None = None,
        suspect: bool = False,
        progress: Progress = SILENT,
    ) -> Segmented:
        """See Runner. Raises the sentence of the service, or of what is in the way to it."""
        options = {"reflect": reflect, "roi": None if roi is None else [int(n) for n in roi], "suspect": suspect}
        client = self._connected(progress)
        try:
            return _by(client, volume, model, options, progress)
        except (NotFound, Unreachable):  # a service that was started anew has forgotten its jobs
            return _by(self._connected(progress), volume, model, options, progress)

    def close(self) -> None:
        """See Runner."""
        self._client.close()

    def _connected(self, _progress: Progress) -> Client:
        return self._client


def aside(work: Callable[[], Found], cancelled: Callable[[], bool]) -> Found:
    """Do `work` in a thread of its own, so that canceling does not wait for a server that hangs.

    After a cancel it has a moment to tell the server; then it is left alone. Raises what it raises, or Cancelled.
    """
    result: list[Found] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # goes on in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, name="request", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.02)
        if cancelled():
            thread.join(LEAVE_SECONDS)
            break
    if raised:
        raise raised[0]
    if not result:
        raise Cancelled
    return result[0]


def _by(client: Client, volume: Volume, model: str, options: Mapping[str, Any], progress: Progress) -> Segmented:
    """Send, segment, and fetch what was found."""
    progress(0.0, "Sending the image")
    identifier = client.upload(volume, progress.part(0.0, SENT))
    job = client.start_job(identifier, model, **options)
    with client.understood():
        try:
            job = _finished(client, job, progress.part(SENT, 1.0))
        except Cancelled:
            client.cancel_job(job["id"])
            raise
        client.cancel_job(job["id"])  # over: its result need not be kept any more
        result = job["result"]
        suspect = result["suspect"]
        if suspect is not None:
            doubt = unpack_box(ArrayBox.model_validate(suspect), volume.grid.shape)
            suspect = Volume(doubt.astype(np.float32), volume.grid)
        labels = label_map(ArrayBox.model_validate(result["labels"]), volume.grid)
        before = result.get("before")  # older servers do not tell
        if before is not None:
            before = label_map(ArrayBox.model_validate(before), volume.grid)
        names = tuple(Label.model_validate(name) for name in result["names"])
        return Segmented(labels, names, dict(result["report"]), suspect, before, identifier)


def _finished(client: Client, job: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
    """Wait for the end of a job, passing its progress on. Raises its error, or Cancelled."""
    seen = -1
    while job["state"] in ("queued", "running"):
        if job["revision"] > seen:
            progress(job["fraction"], job["message"])
        elif progress.cancelled():
            raise Cancelled
        seen = job["revision"]
        job = client.job(job["id"], wait=NEWS_SECONDS, seen=seen)
    if job["state"] == "failed":
        raise RefSegError(job["error"])
    if job["state"] == "cancelled":
        raise Cancelled("The segmentation was canceled on the server.")
    return job
