"""Versions of models: never half there, never changed unnoticed, never taken from a stranger unseen."""

import hashlib
import json
import multiprocessing
import random
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models import store as store_module
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.models.store import ModelStore
from RefSegLib.resources import resource
from small_disk import a_small_disk, no_file_larger_than

FORKED = multiprocessing.get_context("fork")


def a_spec(name="heart"):
    return SegmenterSpec(
        name=name,
        channels=("MR",),
        labels=(Label(value=1, name="left ventricle", color=(1, 0, 0)),),
        spacing=(1, 1, 1),
        patch=(16, 16, 16),
        network=Network(name="unet"),
    )


def weights(seed=0, size=500):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=size).astype(np.float32), "half": rng.normal(size=(3, 2)).astype(np.float16)}


@pytest.fixture(autouse=True)
def nothing_ships(tmp_path, monkeypatch):
    """The models that really ship are none of these tests' business."""
    monkeypatch.setattr(store_module, "resource", lambda name: tmp_path / "no resources" / name)


@pytest.fixture
def a_store(tmp_path):
    return ModelStore(tmp_path / "home")


def everything_in(store, name="heart"):
    """Versions of a model after each has been verified."""
    for version in store.versions(name):
        store.verify(name, version)
    return store.versions(name)


def leftovers(store):
    return [p.name for p in store.root.rglob("*") if p.name.startswith((".tmp", ".writing")) or p.suffix == ".tmp"]


# -- adding, loading, activating


def test_what_is_added_is_loaded(a_store):
    added = a_store.add(
        a_spec(),
        weights(1),
        weights(2),
        parent="heart@7",
        data={"patients": 3},
        settings={"epochs": (1, 2)},
        scores={"dice": np.float32(0.5), "each": np.arange(2), "none": float("nan")},
        reflection={"margin": 0.1},
    )
    loaded = a_store.load("heart", "1")
    assert loaded.manifest == added.manifest
    assert loaded.spec == a_spec()
    assert (loaded.name, loaded.version, loaded.manifest.parent) == ("heart", "1", "heart@7")
    assert loaded.manifest.scores == {"dice": 0.5, "each": [0, 1], "none": None}
    assert loaded.manifest.settings == {"epochs": [1, 2]}
    for seed, found in ((1, loaded.segmenter()), (2, loaded.synthesizer())):
        assert found.keys() == weights(seed).keys()
        assert all(np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in weights(seed).items())


def test_a_version_without_synthesizer_says_so(a_store):
    assert a_store.add(a_spec(), weights()).synthesizer() is None


def test_versions_are_numbered_and_none_is_active_until_it_is_made_so(a_store):
    for seed in range(11):
        a_store.add(a_spec(), weights(seed))
    assert a_store.versions("heart") == [str(n) for n in range(1, 12)]
    with pytest.raises(BadInput, match="active yet"):
        a_store.load("heart")
    a_store.activate("heart", "10")
    assert a_store.active("heart") == a_store.load("heart").version == "10"


def test_home_is_the_argument_else_the_variable_else_the_user_s(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSEG_HOME", str(tmp_path / "variable"))
    assert ModelStore(tmp_path / "argument").home == tmp_path / "argument"
    assert ModelStore().home == tmp_path / "variable"
    monkeypatch.delenv("REFSEG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ModelStore().home == tmp_path / ".refseg"


def test_going_back_step_by_step(a_store):
    for version in ("1", "2", "3"):
        a_store.add(a_spec(), weights())
        a_store.activate("heart", version)
    a_store.activate("heart", "3")  # once more: no step of its own
    assert [a_store.rollback("heart"), a_store.rollback("heart")] == ["2", "1"]
    with pytest.raises(BadInput, match="only ever used version 1"):
        a_store.rollback("heart")
    assert a_store.active("heart") == "1"


def test_going_back_to_a_damaged_version_is_refused_and_changes_nothing(a_store):
    for version in ("1", "2"):
        a_store.add(a_spec(), weights())
        a_store.activate("heart", version)
    (a_store.root / "heart/versions/1/segmenter.safetensors").write_bytes(b"")
    with pytest.raises(RefSegError, match=r"segmenter\.safetensors"):
        a_store.rollback("heart")
    assert a_store.active("heart") == "2"


# -- what is not there


@pytest.mark.parametrize("name", ["", "..", "a/b", "../heart", "my heart", ".hidden", "a\\b", "x" * 65, "a\n"])
def test_bad_names_are_refused(a_store, name):
    for action in (a_store.versions, a_store.load, a_store.active, a_store.rollback):
        with pytest.raises(BadInput, match="cannot be the name"):
            action(name)


def test_an_unknown_model_or_version_is_answered_with_what_there_is(a_store):
    with pytest.raises(BadInput, match="Models there: none"):
        a_store.load("liver")
    a_store.add(a_spec(), weights())
    with pytest.raises(BadInput, match="Models there: heart"):
        a_store.load("liver")
    for version in ("2", "0", "01", "..", "1/../1", "²"):
        with pytest.raises(BadInput, match="Versions: 1"):
            a_store.load("heart", version)


def test_an_abandoned_empty_model_is_not_shown(a_store):
    (a_store.root / "ghost" / "versions").mkdir(parents=True)
    assert a_store.names() == []


# -- damage


def _flip(folder, file):
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)


DAMAGE = {
    "changed weights": (lambda f: _flip(f, "segmenter.safetensors"), "segmenter.safetensors"),
    "short weights": (lambda f: (f / "synthesizer.safetensors").write_bytes(b"\0" * 9), "synthesizer.safetensors"),
    "missing weights": (lambda f: (f / "segmenter.safetensors").unlink(), "segmenter.safetensors is missing"),
    "changed manifest": (lambda f: _flip(f, "model.json"), "model.json"),
    "missing manifest": (lambda f: (f / "model.json").unlink(), "model.json is missing"),
    "missing digest": (lambda f: (f / "model.json.sha256").unlink(), "model.json.sha256 is missing"),
    "one file too many": (lambda f: (f / "evil.pkl").write_bytes(b"x"), "evil.pkl"),
    "renamed folder": (lambda f: f.rename(f.with_name("1")), "model.json belongs to 'heart' version 2"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=DAMAGE.keys())
def test_a_damaged_version_is_refused_naming_file_and_remedy(a_store, damage):
    harm, named = DAMAGE[damage]
    for _ in range(2):
        a_store.add(a_spec(), weights(), weights(1))
    a_store.activate("heart", "2")
    folder = a_store.root / "heart" / "versions"
    for file in (folder / "1").iterdir():
        file.unlink()
    (folder / "1").rmdir()
    harm(folder / "2")
    version = "1" if damage == "renamed folder" else "2"
    for action in (a_store.load, a_store.verify, a_store.activate):
        with pytest.raises(RefSegError, match=named) as caught:
            action("heart", version)
        assert "Roll back" in str(caught.value)


# -- to another machine


def test_an_exported_version_is_imported_and_active_where_the_model_is_new(a_store, tmp_path):
    a_store.add(a_spec(), weights(1), weights(2), scores={"dice": 0.9})
    a_store.export("heart", "1", tmp_path / "out" / "heart.refseg")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["heart.refseg"]
    there = ModelStore(tmp_path / "there")
    first, second = (there.import_(tmp_path / "out" / "heart.refseg") for _ in range(2))
    assert (first.version, second.version, there.active("heart")) == ("1", "2", "1")
    assert second.manifest.scores == {"dice": 0.9}
    assert second.manifest.created == a_store.load("heart", "1").manifest.created
    assert np.array_equal(there.load("heart", "2").synthesizer()["w"], weights(2)["w"])


def _exported(folder, rename=None, drop=(), edit=None, compression=zipfile.ZIP_STORED, more=()):
    """An exported file with something wrong in it; hashes are made to fit again."""
    store = ModelStore(folder / "source")
    version = store.add(a_spec(), weights())
    parts = {p.name: p.read_bytes() for p in version.folder.iterdir()}
    manifest = json.loads(parts["model.json"])
    if edit:
        edit(manifest, parts)
        parts["model.json"] = json.dumps(manifest).encode()
        parts["model.json.sha256"] = hashlib.sha256(parts["model.json"]).hexdigest().encode()
    file = folder / "bad.refseg"
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in (*parts.items(), *more):
            if name not in drop:
                archive.writestr((rename or {}).get(name, name), content)
    return file


def _no_weights(manifest, parts):
    parts["segmenter.safetensors"] = b"\x80\x04pickle"
    digest = hashlib.sha256(parts["segmenter.safetensors"]).hexdigest()
    manifest["files"]["segmenter.safetensors"] = {"sha256": digest, "bytes": 8}


def _named(name):
    def edit(manifest, parts):
        manifest["name"] = manifest["spec"]["name"] = name

    return edit


BAD_FILES = {
    "path": ({"more": [("../../evil", b"x")]}, "does not hold what"),
    "absolute path": ({"rename": {"segmenter.safetensors": "/tmp/segmenter.safetensors"}}, "does not hold what"),
    "program": ({"more": [("setup.py", b"x")]}, "does not hold what"),
    "missing weights": ({"drop": ["segmenter.safetensors"]}, "does not hold what"),
    "compressed": ({"compression": zipfile.ZIP_DEFLATED}, "packed by something else"),
    "twice": ({"more": [("model.json", b"x")]}, "packed by something else"),
    "unlisted": ({"more": [("synthesizer.safetensors", b"x")]}, "does not hold the files"),
    "wrong hash": ({"edit": lambda m, p: p.update({"segmenter.safetensors": b"x"})}, "segmenter.safetensors in"),
    "no weights": ({"edit": _no_weights}, "holds no weights"),
    "no specification": ({"edit": lambda m, p: m.pop("spec")}, "spec: Field required"),
    "bad patch": ({"edit": lambda m, p: m["spec"].update(patch=[0, 1, 1])}, "spec.patch.0"),
    "other names": ({"edit": lambda m, p: m.update(name="liver")}, "called 'liver'"),
    "path as name": ({"edit": _named("../../evil")}, "spec.name"),
    "newer format": ({"edit": lambda m, p: m.update(format=2)}, "newer"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("bad", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_nothing_in_a_file_from_elsewhere_is_trusted(tmp_path, bad):
    arguments, said = bad
    file = _exported(tmp_path, **arguments)
    there = ModelStore(tmp_path / "there")
    with pytest.raises(BadInput, match=said) as caught:
        there.import_(file)
    assert "\n" not in str(caught.value)
    assert not there.home.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_claims_to_be_huge_is_refused(tmp_path, monkeypatch):
    file = _exported(tmp_path)
    monkeypatch.setattr("RefSegLib.models.version.LARGEST_ARCHIVE", 1000)
    with pytest.raises(BadInput, match="no model of ours"):
        ModelStore(tmp_path / "there").import_(file)


def test_what_is_no_export_at_all_is_told(a_store, tmp_path):
    (tmp_path / "text.refseg").write_text("hello")
    for file in (tmp_path / "text.refseg", tmp_path, tmp_path / "nowhere.refseg"):
        with pytest.raises(BadInput):
            a_store.import_(file)


@pytest.fixture(scope="module")
def an_export(tmp_path_factory):
    return _exported(tmp_path_factory.mktemp("fuzz")).read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_to_an_export_is_noticed(an_export, tmp_path_factory, data):
    content = bytearray(an_export)
    place = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(len(content) - 400, len(content) - 1)))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.getbasetemp() / "fuzzed.refseg"
    file.write_bytes(content)
    try:
        manifest, parts = store_module.read_archive(file)
    except BadInput:
        return
    # Dates and flags of the archive mean nothing; what comes out of it is the original.
    assert manifest.files["segmenter.safetensors"].sha256 == hashlib.sha256(parts["segmenter.safetensors"]).hexdigest()
    assert parts["segmenter.safetensors"] in an_export


# -- models that ship


@pytest.fixture
def a_shipped_model(tmp_path, monkeypatch):
    """Version 3 of a model lies where shipped models lie."""
    source = ModelStore(tmp_path / "source")
    for seed in range(3):
        source.add(a_spec("shipped"), weights(seed))
    (tmp_path / "resources/models/shipped").mkdir(parents=True)
    (tmp_path / "resources/models/shipped/MODEL_CARD.md").write_text("about it")
    (source.root / "shipped/versions/3").rename(tmp_path / "resources/models/shipped/3")
    monkeypatch.setattr(store_module, "resource", lambda name: tmp_path / "resources" / name)


def test_a_shipped_model_is_there_on_first_use_and_active(a_store, a_shipped_model):
    assert a_store.names() == ["shipped"]
    found = a_store.load("shipped")
    assert found.version == found.folder.name == a_store.active("shipped") == "1"
    assert np.array_equal(found.segmenter()["w"], weights(2)["w"])
    assert found.folder.is_relative_to(a_store.root)


def test_the_card_of_a_shipped_model_is_its_own_until_somebody_writes_another(a_store, a_shipped_model):
    assert a_store.card("shipped") == "about it"
    a_store.activate("shipped", a_store.add(a_spec("shipped"), weights(9)).version)
    assert a_store.card("shipped") == "about it"
    (a_store.root / "shipped/MODEL_CARD.md").write_text("about ours")
    assert a_store.card("shipped") == "about ours" and a_store.load("shipped").version == "2"


def test_a_model_of_ones_own_has_not_the_card_of_a_shipped_one_of_that_name(a_store, a_shipped_model, tmp_path):
    own = ModelStore(tmp_path / "source")  # its version 1 is another one
    assert own.card("shipped") == "" and own.versions("shipped") == ["1", "2"]


def test_who_lists_models_reads_no_weights_and_sees_files_that_are_missing_or_cut(a_store):
    version = a_store.add(a_spec("net"), weights(1))
    a_store.activate("net", "1")
    file = version.folder / "segmenter.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert a_store.manifest("net").version == "1"
    with pytest.raises(RefSegError, match="damaged"):
        a_store.load("net")
    file.write_bytes(content[:-1])
    with pytest.raises(RefSegError, match=r"segmenter\.safetensors has been changed or damaged"):
        a_store.manifest("net")
    file.unlink()
    with pytest.raises(RefSegError, match=r"segmenter\.safetensors is missing"):
        a_store.manifest("net", "1")


def test_what_is_learned_from_a_shipped_model_comes_after_it(a_store, a_shipped_model):
    assert a_store.add(a_spec("shipped"), weights(9)).version == "2"
    assert a_store.active("shipped") == "1"


def test_two_processes_that_meet_a_shipped_model_do_not_clash(a_store, a_shipped_model):
    meeting = FORKED.Barrier(4)

    def use():
        meeting.wait()
        ModelStore(a_store.home).load("shipped")

    run_all([FORKED.Process(target=use, daemon=True) for _ in range(4)])
    assert everything_in(a_store, "shipped") == ["1"]
    assert (a_store.root / "shipped" / "active").read_text().split() == ["1"]
    assert leftovers(a_store) == []


def test_a_process_killed_between_copying_and_activating_is_made_up_for(a_store, a_shipped_model):
    a_store.load("shipped")
    (a_store.root / "shipped" / "active").unlink()
    assert a_store.load("shipped").version == "1"


def test_an_own_model_of_that_name_is_not_made_active_in_its_stead(tmp_path, a_shipped_model, monkeypatch):
    store = ModelStore(tmp_path / "mine")
    with monkeypatch.context() as nothing_ships:
        nothing_ships.setattr(store_module, "_shipped", dict)
        store.add(a_spec("shipped"), weights(5))
    with pytest.raises(BadInput, match="active yet"):
        store.load("shipped")


# -- many processes, dying processes, full disks


def run_all(processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_writers_at_the_same_time_get_different_numbers(a_store):
    def write(seed):
        for turn in range(4):
            version = ModelStore(a_store.home).add(a_spec(), weights(10 * seed + turn), scores={"seed": seed})
            assert np.array_equal(version.segmenter()["w"], weights(10 * seed + turn)["w"])
            ModelStore(a_store.home).activate("heart", version.version)

    run_all([FORKED.Process(target=write, args=(seed,), daemon=True) for seed in range(4)])
    assert everything_in(a_store) == [str(n) for n in range(1, 17)]
    assert len((a_store.root / "heart" / "active").read_text().split()) >= 4
    assert a_store.active("heart") in a_store.versions("heart")
    assert leftovers(a_store) == []


def test_a_writer_killed_at_any_moment_leaves_nothing_half_written(a_store):
    def write_for_ever():
        while True:
            version = ModelStore(a_store.home).add(a_spec(), weights(size=200_000), weights(1))
            ModelStore(a_store.home).activate("heart", version.version)

    rng, seen = random.Random(0), set()

    def look():
        for version in set(a_store.versions("heart") if a_store.names() else ()) - seen:
            a_store.verify("heart", version)
            seen.add(version)

    for turn in range(20):
        process = FORKED.Process(target=write_for_ever, daemon=True)
        start, goal = time.monotonic(), len(seen) + turn % 2  # every other time somewhere in its very first version
        process.start()
        try:
            while len(seen) < goal:  # a reader beside the writer sees whole versions only, too
                assert process.is_alive(), "the writer came to an end by itself"
                assert time.monotonic() < start + 60, "the writer writes nothing"
                look()
            time.sleep(rng.uniform(0, min(max(time.monotonic() - start, 0.05), 1.0)))
        finally:
            process.kill()
            process.join()
        look()
        if (a_store.root / "heart" / "active").exists():
            assert a_store.load("heart").version in seen
    assert set(everything_in(a_store)) == seen
    version = a_store.add(a_spec(), weights())
    a_store.activate("heart", version.version)
    assert leftovers(a_store) == [], "what killed writers left is cleared away by the next one"


def test_a_slow_writer_is_not_taken_for_a_dead_one(a_store):
    begun, go_on = FORKED.Event(), FORKED.Event()

    def write_slowly():
        with store_module._writing(a_store.root / "heart") as partial:
            (partial / "half").write_text("")
            begun.set()
            go_on.wait(30)
            assert (partial / "half").exists()

    process = FORKED.Process(target=write_slowly, daemon=True)
    process.start()
    assert begun.wait(30)
    a_store.add(a_spec(), weights())
    go_on.set()
    process.join(30)
    assert process.exitcode == 0
    assert everything_in(a_store) == ["1"]


def test_on_a_full_disk_nothing_changes(tmp_path):
    with a_small_disk(tmp_path / "disk", kilobytes=300) as disk:
        store = ModelStore(disk / "home")
        store.add(a_spec(), weights())
        store.activate("heart", "1")
        with pytest.raises(RefSegError, match="No space left on device"):
            store.add(a_spec(), weights(size=200_000))
        with pytest.raises(RefSegError, match="No space left on device"):
            store.export("heart", "1", _filled(disk) / "heart.refseg")
        with pytest.raises(RefSegError):
            store.add(a_spec(), weights())
        assert everything_in(store) == ["1"]
        assert store.active("heart") == "1"
        assert leftovers(store) == []


def _filled(disk):
    with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1024)
    return disk


def test_when_a_file_cannot_be_written_to_its_end_nothing_changes(a_store):
    a_store.add(a_spec(), weights())
    with no_file_larger_than(kilobytes=64), pytest.raises(RefSegError, match="could not be written"):
        a_store.add(a_spec(), weights(size=200_000))
    assert everything_in(a_store) == ["1"]
    assert leftovers(a_store) == []


def test_what_really_ships_is_intact(monkeypatch):
    monkeypatch.setattr(store_module, "resource", resource)
    if not store_module._shipped():
        pytest.skip("no model ships in this checkout")
    for name, folder in store_module._shipped().items():
        assert store_module.verified(folder, name, folder.name).spec.name == name
