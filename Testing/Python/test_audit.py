"""The audit log on real files: every kind of damage is found, nothing but ids can enter, kills lose nothing."""

import json
import subprocess
import sys

import pytest
from InteractiveLearningLib.service.audit import About, Action, AuditLog
from RefSegLib.errors import BadInput, RefSegError

CASE, PATIENT = "c" * 32, "d" * 64
APPENDER = """
import sys
from InteractiveLearningLib.service.audit import About, Action, AuditLog
log = AuditLog(sys.argv[1])
for n in range(int(sys.argv[2])):
    log.append(sys.argv[3], Action.ACCEPT, About(case="c" * 32))
    print(n, flush=True)
"""


@pytest.fixture
def a_log(tmp_path):
    log = AuditLog(tmp_path)
    for number in range(1, 7):
        log.append("anna", Action.PUBLISH, About(version=f"heart@{number}", patient=PATIENT))
    return log


def start(home, count, who):
    return subprocess.Popen([sys.executable, "-c", APPENDER, home, str(count), who], stdout=subprocess.PIPE, text=True)


def changed(lines):
    lines[2] = lines[2].replace(b"heart@3", b"heart@9")


def changed_last(lines):
    lines[-1] = lines[-1].replace(b"anna", b"hans")


def spaced(lines):
    lines[2] = lines[2].replace(b'"event":', b'"event": ')


def doubled_name(lines):
    lines[2] = lines[2].replace(b'{"seq":2', b'{"seq":7,"seq":2')


def deleted(lines):
    del lines[2]


def swapped(lines):
    lines[2], lines[3] = lines[3], lines[2]


def inserted(lines):
    lines.insert(2, lines[1])


def cut_in_the_middle(lines):
    lines[2] = lines[2][:40] + b"\n"


def not_even_text(lines):
    lines[2] = b"\xff\x00\n"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (changed, 3),
        (changed_last, 6),
        (spaced, 3),
        (doubled_name, 3),
        (deleted, 3),
        (swapped, 3),
        (inserted, 3),
        (cut_in_the_middle, 3),
        (not_even_text, 3),
    ],
)
def test_damage_is_found_at_the_first_wrong_line_and_nothing_is_appended_to_it(a_log, tmp_path, damage, line):
    assert a_log.verify() == 6
    a_log.close()
    lines = a_log.path.read_bytes().splitlines(keepends=True)
    damage(lines)
    a_log.path.write_bytes(b"".join(lines))
    with pytest.raises(RefSegError, match=f"damaged in line {line},"):
        AuditLog(tmp_path).verify()
    with pytest.raises(RefSegError, match=f"damaged in line {line},"):
        AuditLog(tmp_path).append("anna", Action.FORGET, About(patient=PATIENT))
    assert a_log.path.read_bytes() == b"".join(lines)


def test_a_cut_tail_and_a_chain_written_anew_are_found_by_an_earlier_head(a_log, tmp_path):
    head = a_log.head()
    a_log.append("anna", Action.FORGET, About(patient=PATIENT))
    assert a_log.verify(head) == 7
    a_log.close()
    lines = a_log.path.read_bytes().splitlines(keepends=True)
    a_log.path.write_bytes(b"".join(lines[:4]))
    assert a_log.verify() == 4
    with pytest.raises(RefSegError, match="was cut: it has 4 entries, and had 6"):
        a_log.verify(head)
    a_log.path.unlink()
    with pytest.raises(RefSegError, match="was cut: it has 0 entries"):
        a_log.verify(head)
    for number in range(1, 8):
        a_log.append("hans", Action.PUBLISH, About(version=f"heart@{number}"))
    assert a_log.verify() == 7
    with pytest.raises(RefSegError, match="written anew or replaced"):
        a_log.verify(head)


def test_a_running_program_notices_that_its_log_was_cut(a_log):
    lines = a_log.path.read_bytes().splitlines(keepends=True)
    with a_log.path.open("r+b") as file:
        file.truncate(sum(map(len, lines[:3])))
    with pytest.raises(RefSegError, match="cut or replaced"):
        a_log.append("anna", Action.FORGET, About(patient=PATIENT))


def test_several_processes_append_to_one_chain(tmp_path):
    names = ("anna", "hans", "ines")
    writers = [start(tmp_path, 20, name) for name in names]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    log = AuditLog(tmp_path)
    assert log.verify() == 60
    found = [entry.who for entry in log.entries()]
    assert {name: found.count(name) for name in names} == dict.fromkeys(names, 20)


def test_kill_9_loses_nothing_acknowledged_and_a_torn_line_is_recovered(tmp_path):
    writer = start(tmp_path, 100000, "anna")
    acknowledged = 0
    for line in writer.stdout:
        acknowledged = int(line) + 1
        if acknowledged == 20:
            writer.kill()
            break
    acknowledged += len(writer.communicate()[0].splitlines())
    log = AuditLog(tmp_path)
    whole = log.verify()
    assert whole >= acknowledged
    with log.path.open("ab") as file:  # what a kill inside the write leaves
        file.write(b'{"seq":%d,"time":"2026' % whole)
    torn = log.path.read_bytes()
    assert log.verify() == whole and log.path.read_bytes() == torn
    log.append("anna", Action.FORGET, About(patient=PATIENT))
    assert log.verify() == whole + 1
    assert [entry.action for entry in log.entries()][-1] is Action.FORGET


@pytest.mark.parametrize("field", ["case", "version", "patient", "user", "token"])
@pytest.mark.parametrize("value", ["Doe^Jane", "1.2.840.113619.2.55", "/data/jane.nii.gz", "", 7])
def test_nothing_but_ids_can_enter_and_what_was_refused_is_not_repeated(field, value):
    with pytest.raises(BadInput) as said:
        About(**{field: value})
    assert not value or str(value) not in str(said.value)


def test_there_is_no_field_for_anything_else_and_who_must_be_an_account(a_log):
    with pytest.raises(TypeError):
        About(note="Jane")
    with pytest.raises(BadInput):
        a_log.append("Jane Doe", Action.ACCEPT, About(case=CASE))
    stored = [json.loads(line) for line in a_log.path.read_text().splitlines()]
    assert all(set(line) == {"seq", "time", "event", "check"} for line in stored)
    assert all(set(line["event"]) == {"who", "action", "about"} for line in stored)
    assert a_log.verify() == 6


def test_a_head_that_is_none_is_refused(a_log):
    with pytest.raises(BadInput, match="no head"):
        a_log.verify("abc")
