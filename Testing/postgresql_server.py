"""A PostgreSQL server of one's own: in a folder of its own, on a socket in that folder, as a user who is not root."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, of the newest version installed; None where there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    found = [p for p in (*debian, Path(shutil.which("initdb") or "/nowhere/initdb").parent) if (p / "initdb").exists()]
    return found[0] if found else None


class Server:
    """Started by the constructor; close() stops it and removes the folder. fsync stays on, as in a hospital."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="refseg-pg-", dir="/tmp"))  # sockets need a short path
        # PostgreSQL refuses to run as root.
        self._as = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self.folder, "nobody")
        self._data, self._made = self.folder / "data", 0
        self._do("initdb", "-A", "trust", "-U", "refseg", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-c listen_addresses='' -k {self.folder} -c shared_buffers=8MB -c max_connections=20"
        # After a kill it would else flush a thousand files one by one, a minute and more on a busy machine.
        if int((self._data / "PG_VERSION").read_text()) >= 14:
            options += " -c recovery_init_sync_method=syncfs"
        self._do("pg_ctl", "-w", "-t", "240", "-l", str(self.folder / "log"), "-o", options, "start")

    def kill(self) -> None:
        """kill -9 of the server and of all its children, in the middle of whatever they do."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        children = [int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split()]
        for pid in (first, *children):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 30
        while any(_runs(pid) for pid in (first, *children)) and time.monotonic() < deadline:
            time.sleep(0.02)
        # In a container nobody may take note of the end of an orphan; its number then looks alive to the next server.
        for note in (self._data / "postmaster.pid", self.folder / ".s.PGSQL.5432.lock"):
            note.unlink(missing_ok=True)

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        with psycopg.connect(f"host={self.folder} user=refseg dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE replay_{self._made}")
        return f"postgresql://refseg@/replay_{self._made}?host={self.folder}"

    def close(self) -> None:
        """Stop it for good."""
        try:
            self._do("pg_ctl", "-w", "-m", "immediate", "stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _do(self, program: str, *arguments: str) -> None:
        command = [*self._as, self._bin / program, "-D", self._data, *arguments]
        # No pipe: the server would keep it open.
        with (self.folder / "said").open("w+") as said:
            done = subprocess.run(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, cwd="/tmp", check=False)
        if done.returncode:
            raise RuntimeError((self.folder / "said").read_text())


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
