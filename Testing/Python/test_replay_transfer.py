"""Accepted cases in one file: whole or refused, under the same key only, and no patient on two sides."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from InteractiveLearningLib.replay import DamagedCase, ReplayStore
from InteractiveLearningLib.replay_room import retire
from InteractiveLearningLib.replay_transfer import Imported, _seal, export_cases, import_cases
from RefSegLib.errors import BadInput, RefSegError
from replay_samples import OLD_KEY, SMALL, a_case, all_bytes, an_old_store
from sqlalchemy import text


@pytest.fixture
def replay(tmp_path):
    store = ReplayStore(tmp_path / "home")
    yield store
    store.close()


@pytest.fixture
def exported(replay, tmp_path) -> Path:
    for n, site in enumerate(("Essen", "Bonn", "")):
        replay.accept(a_case(f"p{n}", SMALL, n, site=site, annotated=((0, 1),), effort=3.5))
    assert export_cases(replay, tmp_path / "cases.zip") == 3
    return tmp_path / "cases.zip"


@pytest.fixture
def another(replay, tmp_path):
    """An empty store with the keys of the first."""
    shutil.copytree(replay.home / "service", tmp_path / "another" / "service")
    store = ReplayStore(tmp_path / "another")
    yield store
    store.close()


def rewritten(file: Path, change) -> Path:
    """The same archive after change(parts) on the dict of its parts."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file


def sealed(replay: ReplayStore, parts: dict[str, bytes], **changes) -> None:
    """Change the index and seal it again, as only who has the keys can."""
    index = json.loads(parts["index.json"]) | changes
    parts["index.json"] = json.dumps(index).encode()
    parts["seal"] = _seal(replay.keys.secret, parts["index.json"]).encode()


def test_another_store_has_the_same_cases_sides_and_arrays_afterwards(replay, exported, another):
    assert import_cases(another, exported) == Imported(added=3, known=0, roles_kept=0)
    assert another.cases() == replay.cases() and not another.damaged()
    assert all_bytes(another.arrays) == all_bytes(replay.arrays)
    assert import_cases(another, exported) == Imported(added=0, known=3, roles_kept=0)
    assert another.accept(a_case("p1")) and another.cases("tiny")[-1].role == "validation"
    assert len(another.cases()) == 4


def test_no_key_and_no_patient_is_in_the_file(replay, exported):
    content = exported.read_bytes()
    assert (replay.home / "service" / "patient.key").read_bytes() not in content
    assert replay.keys.secret not in content and replay.keys.secret.hex().encode() not in content


def test_what_is_known_here_stays_as_it_is(replay, exported, another):
    first = replay.cases()[0].id
    another.accept(a_case("p1"))  # trains here, validates there
    replay.set_consent(first, False)
    assert import_cases(replay, exported) == Imported(0, 3, 0) and not replay.cases()[0].consent
    assert import_cases(another, exported) == Imported(3, 0, roles_kept=1)
    assert {c.role for c in another.cases() if c.patient == replay.patient_key("p1")} == {"train"}


def test_which_cases_were_a_patients_moves_along_so_that_forgetting_still_finds_the_versions(replay, another, tmp_path):
    gone = replay.accept(a_case("p0", SMALL))
    with replay.writing() as db:
        db.execute(text("UPDATE cases SET accepted_at = '2020-01-01T00:00:00+00:00'"))
    assert retire(replay, 1).cases == (gone,)
    export_cases(replay, tmp_path / "f")
    import_cases(another, tmp_path / "f")
    assert another.about("p0") == ([gone], [])


def test_an_export_of_a_retired_case_brings_it_back_once(replay, exported):
    with replay.writing() as db:
        db.execute(text("UPDATE cases SET accepted_at = '2020-01-01T00:00:00+00:00'"))
    gone = retire(replay, 1).cases
    assert len(gone) == 2 and import_cases(replay, exported).added == 2 and not replay.damaged()
    assert replay.about("p0")[0] == [c.id for c in replay.cases() if c.patient == replay.patient_key("p0")]


def test_a_store_with_other_keys_is_refused(replay, exported, tmp_path):
    stranger = ReplayStore(tmp_path / "stranger")
    with pytest.raises(BadInput, match="other keys of patients"):
        import_cases(stranger, exported)
    assert stranger.cases() == [] and not list(stranger.arrays.glob("*/*"))


def test_a_store_with_an_old_key_moves_only_to_one_with_the_same_old_key(tmp_path):
    an_old_store(tmp_path / "old", {"P1": "validation"})
    old = ReplayStore(tmp_path / "old")
    export_cases(old, tmp_path / "f")
    shutil.copytree(old.home / "service", tmp_path / "new" / "service")
    with pytest.raises(BadInput, match="other keys of patients"):
        import_cases(ReplayStore(tmp_path / "new"), tmp_path / "f")
    (tmp_path / "new" / "replay" / "patient.key").write_bytes(OLD_KEY)
    new = ReplayStore(tmp_path / "new")
    assert import_cases(new, tmp_path / "f").added == 1
    new.accept(a_case("P1"))
    assert {(c.patient, c.role) for c in new.cases()} == {(new.patient_key("P1"), "validation")}


@pytest.mark.parametrize("part", ["index.json", "seal", "an array"])
def test_every_changed_byte_is_noticed(exported, another, part):
    def change(parts: dict[str, bytes]) -> None:
        name = next(n for n in parts if n.startswith("arrays/")) if part == "an array" else part
        parts[name] = parts[name][:-2] + bytes([parts[name][-2] ^ 1]) + parts[name][-1:]

    with pytest.raises(BadInput, match="cannot be imported"):
        import_cases(another, rewritten(exported, change))
    assert another.cases() == [] and not list(another.arrays.glob("*/*"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(exported, another, share):
    content = exported.read_bytes()
    exported.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadInput, match="cannot be imported"):
        import_cases(another, exported)
    assert another.cases() == [] and not list(another.arrays.glob("*/*"))


def test_flipped_bytes_anywhere_are_refused_or_do_not_matter(replay, exported, another):
    content = exported.read_bytes()
    for position in range(0, len(content), len(content) // 60):
        exported.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            import_cases(another, exported)
        except BadInput:
            assert another.cases() == []
        else:  # a byte that says nothing, as the time of a part
            assert another.cases() == replay.cases() and not another.damaged()
            for case in replay.cases():
                with another.writing() as db:
                    db.execute(text("DELETE FROM cases WHERE id = :id"), {"id": case.id})


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "arrays/../../evil", "arrays/" + "0" * 64])
def test_a_part_that_belongs_to_no_case_is_refused_wherever_it_points(exported, another, tmp_path, name):
    with pytest.raises(BadInput, match="parts that belong to no case"):
        import_cases(another, rewritten(exported, lambda parts: parts.update({name: b"evil"})))
    assert not list(tmp_path.rglob("evil")) and another.cases() == []


def changed(key: str, value):
    return lambda index: {"cases": [index["cases"][0] | {key: value}, *index["cases"][1:]]}


@pytest.mark.parametrize(
    "change",
    [
        changed("image", "../" * 21 + "x"),
        changed("id", "'; DROP TABLE cases; --"),
        changed("accepted_at", "yesterday"),
        changed("details", "{}"),
        changed("details", "[" * 5000),
        changed("patient_key", "0" * 64),
        changed("consent", "yes"),
        changed("site", "x" * 65),
        changed("unknown", 1),
        lambda index: {"format": 2},
        lambda index: {"cases": [index["cases"][0], *index["cases"]]},
        lambda index: {"patients": {}},
        lambda index: {"past": {"0" * 32: "0" * 64}},
    ],
)
def test_an_index_that_makes_no_sense_is_refused_even_under_a_good_seal(replay, exported, another, change):
    def change_parts(parts: dict[str, bytes]) -> None:
        sealed(replay, parts, **change(json.loads(parts["index.json"])))

    with pytest.raises(BadInput, match="cannot be imported"):
        import_cases(another, rewritten(exported, change_parts))
    assert another.cases() == [] and not list(another.arrays.glob("*/*"))


def test_what_is_no_export_is_refused(another, tmp_path):
    with pytest.raises(BadInput, match="There is no file"):
        import_cases(another, tmp_path / "nothing")
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        import_cases(another, tmp_path)
    (tmp_path / "text").write_text("not an archive")
    with pytest.raises(BadInput, match="it is no archive"):
        import_cases(another, tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.json", "{}" * 10_000)
    with pytest.raises(BadInput, match="no export of accepted cases"):
        import_cases(another, tmp_path / "zip")
    with zipfile.ZipFile(tmp_path / "zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("seal", "")
    with pytest.raises(BadInput, match="not stored as they are"):
        import_cases(another, tmp_path / "zip")


def test_a_damaged_case_is_named_and_no_file_is_written(replay, tmp_path):
    case = replay.accept(a_case("p1"))
    replay.files(case)[0].write_bytes(b"damaged")
    (tmp_path / "f").write_bytes(b"the export of yesterday")
    with pytest.raises(DamagedCase, match=case):
        export_cases(replay, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"the export of yesterday" and not list(tmp_path.glob(".writing*"))


def test_a_place_that_cannot_be_written_is_said(replay, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RefSegError, match="could not be written"):
        export_cases(replay, tmp_path / "file" / "below")
