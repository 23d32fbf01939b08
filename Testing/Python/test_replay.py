"""The replay store: durable, anonymous, checked on reading, and every patient on one side only."""

import multiprocessing
import shutil
import stat

import numpy as np
import pytest
from InteractiveLearningLib.replay import AcceptedCase, ReplayStore
from InteractiveLearningLib.replay_index import SettingRow
from InteractiveLearningLib.service.patients import patient_key
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume
from replay_samples import a_case, all_bytes


@pytest.fixture
def replay(tmp_path):
    store = ReplayStore(tmp_path)
    yield store
    store.close()


def test_a_case_comes_back_voxel_for_voxel_on_every_grid(replay, a_grid):
    case = a_case("p1", a_grid, annotated=((0, 2), (1, 3)), effort=12.5, region=True)
    confidence = np.random.default_rng(1).random(a_grid.shape).astype(np.float32)
    identifier = replay.accept(AcceptedCase(**{**vars(case), "confidence": confidence}))
    back = replay.load(identifier)
    np.testing.assert_array_equal(back.image.array, case.image.array)
    np.testing.assert_array_equal(back.labels.array, case.labels.array)
    assert back.image.array.dtype == np.float32 and back.labels.array.dtype == np.uint8
    assert np.abs(back.confidence - confidence).max() <= 0.5 / 255 + 1e-6
    assert back.image.grid == case.image.grid and back.labels.grid == case.labels.grid
    assert (back.annotated, back.effort, back.region, back.label_names) == (
        ((0, 2), (1, 3)),
        12.5,
        True,
        ("front", "back"),
    )


def test_the_same_arrays_are_kept_once(replay):
    replay.accept(a_case("p1"))
    replay.accept(a_case("p2"))
    assert len(list(replay.arrays.glob("*/*"))) == 2


def test_no_patient_and_no_readable_key_is_on_the_disk(replay, tmp_path):
    replay.accept(a_case("Mustermann^Erika"))
    replay.close()
    assert b"mustermann" not in all_bytes(tmp_path).lower()
    assert stat.S_IMODE((tmp_path / "service" / "patient.key").stat().st_mode) == 0o600


def test_the_hash_of_a_patient_depends_on_the_key_of_the_store(replay, tmp_path):
    other = ReplayStore(tmp_path / "other")
    assert replay.patient_key("p1") != other.patient_key("p1")
    assert replay.patient_key("p1") == ReplayStore(replay.home).patient_key(" p1 ")


def test_a_lost_key_is_refused_and_not_replaced(replay):
    replay.accept(a_case("p1"))
    shutil.move(replay.home / "service", replay.home / "elsewhere")  # the key and what would tell that it is lost
    with pytest.raises(RefSegError, match=r"patient\.key is missing"):
        ReplayStore(replay.home)
    assert not (replay.home / "service").exists()
    patient_key(replay.home, "somebody")  # makes a new key
    with pytest.raises(RefSegError, match=r"patient\.key is not the one of this replay store"):
        ReplayStore(replay.home)
    shutil.rmtree(replay.home / "service")
    shutil.move(replay.home / "elsewhere", replay.home / "service")
    assert ReplayStore(replay.home).load(replay.cases("tiny")[0].id)


def test_patients_alternate_until_enough_validate_then_one_in_five_does(replay):
    for patient in range(200):
        replay.accept(a_case(f"p{patient}", Grid((2, 2, 2)), patient, label_names=("a", "b")))
    roles = [c.role for c in replay.cases("tiny")]
    assert roles[:4] == ["train", "validation", "train", "validation"]
    assert 0.1 < roles[4:].count("validation") / 196 < 0.3


def test_a_patient_never_changes_sides(replay):
    for patient in ["a", "b", "c", "d", "e"] * 4:
        replay.accept(a_case(patient))
    replay.accept(a_case("b", model="another"))
    sides = {}
    for case in [*replay.cases("tiny"), *replay.cases("another")]:
        assert sides.setdefault(case.patient, case.role) == case.role
    assert {c.id for c in replay.cases("tiny", "train")}.isdisjoint(c.id for c in replay.cases("tiny", "validation"))
    assert [c.role for c in replay.cases("another")] == ["validation"]


def test_the_size_of_the_validation_set_is_remembered(tmp_path):
    ReplayStore(tmp_path, validation_patients=5).close()
    assert ReplayStore(tmp_path).validation_patients == 5


def test_a_damaged_array_is_named_and_harms_no_other_case(replay):
    first, second = replay.accept(a_case("p1", seed=1)), replay.accept(a_case("p2", seed=2))
    third = replay.accept(a_case("p3", seed=3))
    for path in replay.files(third):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(RefSegError, match=f"case {third} is damaged"):
        replay.load(third)
    assert replay.damaged().keys() == {third}
    assert replay.load(first).patient and replay.load(second).patient
    again = replay.accept(a_case("p3", seed=3))
    assert replay.load(again) and not replay.damaged()


def test_forgetting_a_patient_removes_rows_and_arrays_but_not_what_others_share(replay, tmp_path):
    shared = replay.accept(a_case("stays", seed=1))
    replay.accept(a_case("goes", seed=1))
    replay.accept(a_case("goes", seed=2))
    key = replay.patient_key("goes")
    assert replay.forget("goes") == []
    assert [c.id for c in replay.cases("tiny")] == [shared]
    assert len(list(replay.arrays.glob("*/*"))) == 2 and not replay.damaged()
    replay.close()
    assert key.encode() not in all_bytes(tmp_path)
    assert replay.forget("never seen") == []


def test_leftovers_of_a_killed_writer_are_collected_at_the_next_opening(replay):
    identifier = replay.accept(a_case("p1"))
    orphan = replay.contents.keep(b"written, but its row never came")
    torn = replay.arrays / "ab" / "abcd.99.tmp"
    torn.parent.mkdir(exist_ok=True)
    torn.write_bytes(b"half")
    again = ReplayStore(replay.home)
    assert not again.contents.path(orphan).exists() and not torn.exists()
    assert again.load(identifier).patient == replay.patient_key("p1")


def _accept_many(home, name, queue):
    store = ReplayStore(home)
    for n in range(8):
        queue.put(store.accept(a_case(f"{name}-{n}", seed=hash(name) % 1000 + n)))


def test_writers_in_several_processes_lose_nothing(replay):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    writers = [context.Process(target=_accept_many, args=(replay.home, f"w{n}", queue)) for n in range(3)]
    for writer in writers:
        writer.start()
    accepted = {queue.get(timeout=60) for _ in range(24)}
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert {c.id for c in replay.cases("tiny")} == accepted and not replay.damaged()


def test_the_sample_is_repeatable_bounded_fair_and_stable_under_forgetting(replay):
    for patient in range(40):
        replay.accept(a_case(f"p{patient}", Grid((2, 2, 2)), patient))
    able = replay.cases("tiny", "train")
    chosen = [c.id for c in replay.sample("tiny", 8, seed=1)]
    assert len(chosen) == 8 and chosen == [c.id for c in replay.sample("tiny", 8, seed=1)]
    drawn = np.bincount(
        [[c.id for c in able].index(c.id) for seed in range(200) for c in replay.sample("tiny", 8, seed)],
        minlength=len(able),
    )
    expected = 200 * 8 / len(able)
    assert (np.abs(drawn - expected) < 6 * np.sqrt(expected)).all()
    unchosen = next(
        p for p in range(40) if replay.patient_key(f"p{p}") in {c.patient for c in able if c.id not in chosen}
    )
    replay.forget(f"p{unchosen}")
    assert [c.id for c in replay.sample("tiny", 8, seed=1)] == chosen
    assert chosen[0] not in [c.id for c in replay.sample("tiny", 8, seed=1, leave_out=chosen[:1])]


def test_a_case_without_consent_is_never_replayed(replay):
    replay.accept(a_case("p1", consent=False))
    assert replay.cases("tiny", "train") and replay.sample("tiny", 8) == []


def test_consent_can_be_withdrawn_and_given_again(replay):
    train, validation = (replay.accept(a_case(p)) for p in ("p1", "p2"))
    for case in (train, validation):
        replay.set_consent(case, False)
    assert replay.sample("tiny", 8) == [] and not any(c.consent for c in ReplayStore(replay.home).cases("tiny"))
    assert not replay.may_be_learnt([train]) and not replay.load(train).consent
    replay.set_consent(train, True)
    assert [c.id for c in replay.sample("tiny", 8)] == [train] and replay.may_be_learnt([train])
    with pytest.raises(BadInput, match="no case 0123"):
        replay.set_consent("0123", True)


def test_a_case_says_its_site_and_which_structures_are_in_its_mask(replay):
    identifier = replay.accept(a_case("p1", shown=(2,), site=" Essen "))
    (info,) = replay.cases("tiny")
    assert (info.site, info.structures, info.label_names) == ("Essen", ("back",), ("front", "back"))
    assert replay.load(identifier).site == "Essen"


def test_an_index_is_refused_beside_arrays_that_are_not_its_own_and_nothing_is_swept(replay, tmp_path):
    replay.accept(a_case("p1"))
    replay.close()
    index = replay.folder / "index.sqlite"
    aside = shutil.move(index, tmp_path / "aside.sqlite")
    with pytest.raises(RefSegError, match="is not the one of the arrays"):
        ReplayStore(replay.home)
    assert len(list(replay.arrays.glob("*/*"))) == 2
    for part in replay.folder.glob("index.sqlite*"):
        part.unlink()
    shutil.move(aside, index)
    again = ReplayStore(replay.home)
    assert again.load(again.cases("tiny")[0].id)


def test_a_store_of_a_newer_version_is_refused_and_left_alone(replay):
    with replay.writing() as db:
        db.get_one(SettingRow, "schema").value = 99
    with pytest.raises(RefSegError, match="newer RefSeg"):
        ReplayStore(replay.home)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": LabelMap(np.zeros((6, 8, 10), np.uint8), Grid((6, 8, 10), (2, 1, 1)))}, "mask is empty"),
        ({"labels": LabelMap(np.ones((6, 8, 10), np.uint8), Grid((6, 8, 10), (1, 1, 1)))}, "not lie on the grid"),
        ({"label_names": ("one",)}, "only 1 names"),
        ({"patient": " "}, "no patient"),
        ({"site": "x" * 65}, "short name"),
        ({"site": "Essen\n"}, "short name"),
        ({"confidence": np.ones((2, 2, 2), np.float32)}, "does not fit"),
        ({"confidence": np.full((6, 8, 10), np.nan, np.float32)}, "between 0 and 1"),
        ({"annotated": ((0, 6),)}, "outside the image"),
        ({"image": Volume(np.full((6, 8, 10), np.nan, np.float32), Grid((6, 8, 10), (2, 1, 1)))}, "not numbers"),
    ],
)
def test_a_case_that_cannot_be_learnt_from_is_refused_with_a_sentence(replay, changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        replay.accept(a_case(**({"patient": "p1"} | changes)))
    assert replay.cases("tiny") == [] and not list(replay.arrays.glob("*/*"))


def test_a_full_disk_is_said_plainly_and_keeps_nothing(replay, monkeypatch):
    resource = pytest.importorskip("resource")
    import signal

    old, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # a limit on the size of files fails the very write calls that a full disk fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
        with pytest.raises(RefSegError, match="could not be written, nothing was changed"):
            replay.accept(a_case("p1", Grid((16, 16, 16))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert replay.cases("tiny") == [] and not list(replay.arrays.glob("*/*"))
    assert replay.load(replay.accept(a_case("p1"))).patient
