"""Patients are recognized by a keyed hash; a lost or replaced key is noticed."""

import os
import subprocess
import sys

import pytest
from InteractiveLearningLib.service.patients import patient_key
from RefSegLib.errors import BadInput, RefSegError


def test_the_same_patient_is_recognized_however_the_id_is_written(tmp_path):
    key = patient_key(tmp_path, "Müller-07")
    assert len(key) == 64 and int(key, 16)
    for written in (" Müller-07 ", "MÜLLER-07", "Mu\u0308ller-07", "Ｍüller-07", "Müller-07\0", "\u00a0Müller-07"):
        assert patient_key(tmp_path, written) == key
    assert patient_key(tmp_path, "Müller-08") != key


def test_two_sites_know_a_patient_under_different_hashes(tmp_path):
    assert patient_key(tmp_path / "a", "p1") != patient_key(tmp_path / "b", "p1")


@pytest.mark.parametrize("empty", ["", "  ", "\0", "\u3000"])
def test_a_patient_without_id_is_refused(tmp_path, empty):
    with pytest.raises(BadInput, match="no id"):
        patient_key(tmp_path, empty)


def test_the_key_is_random_and_for_its_owner_alone_and_no_id_is_stored(tmp_path):
    patient_key(tmp_path, "jane-doe")
    key = tmp_path / "service" / "patient.key"
    assert len(key.read_bytes()) == 32
    if os.name == "posix":
        assert key.stat().st_mode & 0o777 == 0o600
    assert not any(b"jane" in path.read_bytes() for path in key.parent.iterdir())


def test_a_lost_a_replaced_and_a_cut_key_are_noticed_and_a_restored_one_works_again(tmp_path):
    before = patient_key(tmp_path, "p1")
    path = tmp_path / "service" / "patient.key"
    key = path.read_bytes()
    path.unlink()
    with pytest.raises(RefSegError, match="is missing"):
        patient_key(tmp_path, "p1")
    assert not path.exists()
    for wrong in (bytes(32), key[:16], b""):
        path.write_bytes(wrong)
        with pytest.raises(RefSegError, match="not the one this site began with"):
            patient_key(tmp_path, "p1")
    path.write_bytes(key)
    assert patient_key(tmp_path, "p1") == before


def test_processes_that_begin_at_the_same_time_agree_on_one_key(tmp_path):
    code = (
        "import sys; from InteractiveLearningLib.service.patients import patient_key as k; print(k(sys.argv[1], 'p'))"
    )
    command = [sys.executable, "-c", code, tmp_path]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate()[0].strip() for process in running}
    assert answers == {patient_key(tmp_path, "p")}
