"""The service of this computer, shared by programs that come and go: real processes, really killed."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from InteractiveLearningLib.service import local
from InteractiveLearningLib.service.clients import Clients, Ending
from InteractiveLearningLib.service.local import LocalService
from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.progress import Progress

# A program that uses the service until its standard input ends.
PROGRAM = """
import sys
from InteractiveLearningLib.service.local import LocalService
service = LocalService(sys.argv[1])
print(service.client().hello()["service"], service._told()["pid"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def a_home(tmp_path):
    """A store; whatever was started on it ends with the test."""
    home = tmp_path / "home"
    home.mkdir()
    yield home
    for process in services(home):
        process.kill()
    soon(lambda: not services(home))


def services(home):
    """Every process of a service or a learner on a store."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            ours = str(home) in line and any(word.startswith("InteractiveLearningLib.") for word in line)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def soon(true, seconds=120):
    """Wait until something is true: this computer may have its hands full."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def a_program(home):
    """Another program that uses the service."""
    command = [sys.executable, "-c", PROGRAM, str(home)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended(program):
    """Let it end as programs do."""
    program.communicate(timeout=120)
    return program.returncode


def told_by(program):
    """The pid of the service that a program has reached."""
    name, pid = program.stdout.readline().split()
    assert name == "refseg"
    return int(pid)


def test_programs_share_one_service_that_ends_when_the_last_of_them_has_left(a_home):
    first = LocalService(a_home)
    assert not services(a_home) and first.found() is None
    client = first.client()
    assert client.jobs() == [] and first.client() is client
    told = a_home / "service" / "local.json"
    pid = json.loads(told.read_bytes())["pid"]
    if os.name == "posix":
        assert told.stat().st_mode & 0o077 == 0
    second = a_program(a_home)
    assert told_by(second) == pid
    first.leave()
    first.leave()  # leaving twice does no harm
    time.sleep(1.5)  # longer than the service looks who is there
    assert first.found() is not None  # the other program holds it; this one is back
    first.leave()
    assert [process.pid for process in services(a_home)] == [pid]
    assert ended(second) == 0
    soon(lambda: not services(a_home))
    assert not told.exists()


def test_programs_that_start_at_the_same_moment_share_one_service(a_home):
    programs = [a_program(a_home) for _ in range(3)]
    assert len({told_by(program) for program in programs}) == 1
    assert len(services(a_home)) == 1
    assert [ended(program) for program in programs] == [0, 0, 0]
    soon(lambda: not services(a_home))


def test_whoever_comes_while_a_service_is_ending_gets_the_next_one(a_home):
    """Whenever in that second they come: it is told to end, or has just seen that nobody needs it any more."""
    for told_to_end, wait in ((True, 0.0), (True, 0.2), (False, 0.4), (False, 0.5), (False, 0.6)):
        first = LocalService(a_home)
        first.client()
        pid = first._told()["pid"]
        if told_to_end:
            os.kill(pid, signal.SIGTERM)
        else:
            first.leave()
        time.sleep(wait)
        second = LocalService(a_home)
        assert second.client().jobs() == []
        time.sleep(0.3)
        assert second.client().jobs() == [] and len(services(a_home)) <= 2
        first.leave()
        second.leave()
    soon(lambda: not services(a_home))


def test_a_service_that_is_ending_takes_nobody_in():
    clients = Clients()
    clients.renew("first")
    assert clients.needed()
    clients.leave("first")
    clients.renew("second")  # in time
    assert clients.needed()
    clients.leave("second")
    assert not clients.needed()
    with pytest.raises(Ending):
        clients.renew("third")
    assert not clients.needed()


def test_a_killed_service_is_started_again_by_the_next_call(a_home):
    service = LocalService(a_home)
    service.client()
    killed = service._told()["pid"]
    os.kill(killed, signal.SIGKILL)
    psutil.Process(killed).wait(60) if psutil.pid_exists(killed) else None
    assert service.client().jobs() == [] and service._told()["pid"] != killed
    assert (a_home / "service" / "serve.log.1").exists()
    service.leave()
    soon(lambda: not services(a_home))


def test_what_was_left_by_a_crash_is_no_service(a_home):
    folder = a_home / "service"
    folder.mkdir()
    mine = {"url": "http://127.0.0.1:9", "token": "x" * 43, "pid": os.getpid(), "api": [1]}
    for left in (mine, mine | {"pid": None}, mine | {"pid": 2**22 + 5}, mine | {"url": "http://example.org"}, []):
        (folder / "local.json").write_text(json.dumps(left))
        assert LocalService(a_home).found() is None
    (folder / "local.json").write_bytes(b'{"url": "htt')
    service = LocalService(a_home)
    assert service.client().jobs() == []
    service.leave()
    soon(lambda: not services(a_home))


def test_why_it_does_not_start_is_told(a_home, tmp_path):
    with pytest.raises(RefSegError, match=r"The Python '/no/python' could not be started: No such file"):
        LocalService(a_home, "/no/python").client()
    ends = tmp_path / "ends"
    ends.write_text("#!/bin/sh\necho 'Error: The disk is full. Make room.'\nexit 2\n")
    ends.chmod(0o755)
    with pytest.raises(RefSegError, match=r"^The disk is full\. Make room\.$"):
        LocalService(a_home, ends).client()
    ends.write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(RefSegError, match="SIGKILL"):
        LocalService(a_home, ends).client()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RefSegError, match=r"cannot be used: .*Choose another folder"):
        LocalService(file).client()


def test_starting_can_be_canceled_and_has_an_end(a_home, tmp_path, monkeypatch):
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    service = LocalService(a_home, hangs)
    with pytest.raises(Cancelled):
        service.client(Progress(cancelled=lambda: service._process is not None))
    service._process.wait(60)
    monkeypatch.setattr(local, "START_SECONDS", 0.3)
    with pytest.raises(RefSegError, match=r"did not start within .*serve\.log"):
        service.client()
    service._process.wait(60)


def test_the_service_outlives_a_ctrl_c_in_the_terminal_of_the_program_that_started_it(a_home):
    service = LocalService(a_home)
    client = service.client()
    if os.name == "posix":
        assert os.getpgid(service._told()["pid"]) != os.getpgid(0)
        assert os.getsid(service._told()["pid"]) != os.getsid(0)
    assert client.jobs() == []
    service.leave()
    soon(lambda: not services(a_home))
