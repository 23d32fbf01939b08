"""What background threads have found, let into the event loop's thread, the only one that may touch MRML."""

import asyncio
import logging
import time
from contextlib import suppress

from RefSegLib.errors import RefSegError

# Nobody notices 20 ms, and 50 looks a second at empty queues cost nothing. Somebody who has clicked waits for several
# turns of a session, one look each.
LOOK_SECONDS = 0.02
BUSY_SECONDS = 0.004


class Pump:
    """Calls functions again and again until it is closed.

    state: trame's, sent to the page after each round; busy(): somebody waits for what is polled; failed(RefSegError):
    told what a function has raised.
    """

    def __init__(self, state, busy, failed):
        self._state, self._busy, self._failed = state, busy, failed
        self._polled, self._due, self._task = [], {}, None

    def add(self, function) -> None:
        """Call it in every round from now on."""
        self._polled.append(function)

    def start(self) -> None:
        """Begin, in the event loop that runs."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Call nothing any more."""
        if self._task is not None:
            self._task.cancel()
        self._polled, self._due = [], {}

    def soon(self, work) -> None:
        """Do work when the event at hand is over."""
        asyncio.get_running_loop().call_soon(self._guarded, work)

    def once(self, key, seconds, work) -> None:
        """Do work after a while; what was to be done under the same key before is done no more."""
        self._due[key] = time.monotonic() + seconds, work

    async def _run(self):
        while True:
            for function in list(self._polled):
                self._guarded(function)
            now = time.monotonic()
            for key in [key for key, (when, _work) in self._due.items() if when <= now]:
                self._guarded(self._due.pop(key)[1])
            await asyncio.sleep(BUSY_SECONDS if self._busy() else LOOK_SECONDS)

    def _guarded(self, work):
        try:
            with self._state:
                try:
                    work()
                except RefSegError as error:
                    self._failed(error)
        except Exception:  # one broken round must not end all that follow
            logging.exception("A step of the workspace failed.")
            with suppress(Exception), self._state:
                self._failed(RefSegError("This did not work, by a fault of the program; its log says more."))
