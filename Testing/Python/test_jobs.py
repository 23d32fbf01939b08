"""Work in the background: news only when polled, and a cancel that never waits."""

import subprocess
import sys
import threading

import pytest
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.jobs import Job


def told_by(job):
    """Everything a job tells, in order."""
    told = []
    for name in ("progressed", "finished", "failed"):
        getattr(job, name).connect(lambda *values, name=name: told.append((name, *values)))
    return told


def test_news_are_told_in_order_by_the_thread_that_polls():
    def work(report, cancelled):
        report(0.5, "half way")
        return threading.current_thread()

    job = Job(work)
    told, threads = told_by(job), []
    job.finished.connect(lambda _: threads.append(threading.current_thread()))
    job.wait()
    (progress, finished) = told
    assert progress == ("progressed", 0.5, "half way")
    assert finished[0] == "finished" and finished[1] is not threading.current_thread()
    assert threads == [threading.current_thread()] and not job.open and not job.poll()


@pytest.mark.parametrize("error", [BadInput("No."), ValueError("broken")])
def test_an_error_is_told_as_a_sentence(error):
    def work(report, cancelled):
        raise error

    job = Job(work)
    told = told_by(job)
    job.wait()
    assert isinstance(told[0][1], RefSegError) and str(error) in str(told[0][1])


def test_a_canceled_job_says_so_at_once_whatever_its_work_still_does():
    go, stopped, over = threading.Event(), threading.Event(), threading.Event()

    def work(report, cancelled):
        report(0.1, "begun")
        go.wait()  # deaf, as a request to a server that hangs
        report(0.9, "late")
        over.set()
        return "too late"

    job = Job(work, stopped.set)
    told = told_by(job)
    while not told:
        job.poll()
    job.cancel()
    assert stopped.is_set() and not over.is_set()
    assert not job.poll() and not job.open
    assert [name for name, *_ in told] == ["progressed", "failed"] and isinstance(told[1][1], Cancelled)
    go.set()
    job.wait()
    assert over.is_set() and len(told) == 2
    job.cancel()
    job.poll()
    assert len(told) == 2


def test_a_result_that_nobody_has_heard_of_is_dropped_by_a_cancel():
    job = Job(lambda report, cancelled: "found")
    told = told_by(job)
    job._thread.join()
    job.cancel()
    job.poll()
    assert [name for name, *_ in told] == ["failed"] and isinstance(told[0][1], Cancelled)


def test_a_listener_may_cancel():
    job = Job(lambda report, cancelled: [report(n / 4, "") for n in range(4)])
    told = told_by(job)
    job.progressed.connect(lambda *_: job.cancel())
    job.wait()
    assert [name for name, *_ in told] == ["progressed", "failed"]


def test_a_program_that_ends_stops_what_still_runs_and_waits_for_it():
    program = """
from RefSegLib.jobs import Job
import time
def work(report, cancelled):
    while not cancelled():
        time.sleep(0.01)
    print("stopped", flush=True)
job = Job(work)
print("ends", flush=True)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["ends", "stopped"]
