"""Patients are drawn for training, validation and test by their names alone."""

from collections import Counter

import pytest
from RefSegLib.training.split import patient_of, split_of


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("hippocampus_001", "hippocampus_001"),
        ("patient001_frame12", "patient001"),
        ("patient001_ED", "patient001"),
        ("sub-01_ses-2_T1w", "sub-01"),
        ("sub-01", "sub-01"),
        ("010_2HC", "010"),
        ("010_HC", "010"),
        ("drishtiGS_079_OD", "drishtiGS_079"),
        ("case7_visit2_left", "case7"),
        ("BRATS_004_0000", "BRATS_004"),
        ("frame12", "frame12"),
        ("_ED", "_ED"),
    ],
)
def test_the_patient_is_what_is_left_of_a_name(case, patient):
    assert patient_of(case) == patient


FROZEN = ["test", "validation", "train", "validation", "train", "train", "train", "train"]


def test_roles_never_change():
    # Frozen: a change here would move patients that models were tuned on into the test set.
    assert [split_of(f"hippocampus_{n:03d}") for n in (1, 3, 4, 6, 7, 8, 11, 14)] == FROZEN


def test_shares_are_as_promised():
    counts = Counter(split_of(f"patient{n}") for n in range(20000))
    assert counts["train"] / 20000 == pytest.approx(0.65, abs=0.01)
    assert counts["validation"] / 20000 == pytest.approx(0.15, abs=0.01)
    assert counts["test"] / 20000 == pytest.approx(0.20, abs=0.01)


def test_all_real_frames_of_a_heart_share_a_role(shared_data):
    names = [file.name.removesuffix(".nii.gz") for file in (shared_data / "acdc" / "images").glob("*.nii.gz")]
    patients = {patient_of(name) for name in names}
    assert len(names) == 2 * len(patients) > 0
