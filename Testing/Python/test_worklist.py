"""Worklists: the cases of a folder, what was decided about them, and a site's list on a real service."""

import json
import stat
import time

import httpx
import numpy as np
import pydicom
import pytest
from InteractiveLearningLib.service import download
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.audit import Action, AuditLog
from InteractiveLearningLib.service.client import Client
from InteractiveLearningLib.service.failures import Denied, Elsewhere, NotFound, ServiceError
from InteractiveLearningLib.service.uploads import Uploads
from InteractiveLearningLib.service.worklist import LEASE, ServedWorklist, Taken
from InteractiveLearningLib.worklist import Marks, cases_in, patient_at
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.progress import SILENT, Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_image, write_image
from RefSegLib.volume.volume import Volume
from running_service import RunningService

GRID = Grid((7, 20, 18), (5.0, 0.8, 0.7), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), (-30.0, 12.0, 900.0))


def an_image(seed, shape=GRID.shape, dtype=np.int16):
    grid = Grid(shape, GRID.spacing, GRID.direction, GRID.origin)
    return Volume(np.random.default_rng(seed).integers(-900, 900, shape).astype(dtype), grid)


def a_series(folder, patient):
    folder.mkdir(parents=True)
    for number in range(3):
        dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 4 * number], [1, 0, 0, 0, 1, 0]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.PatientID = "1.2.3", patient
        dataset.save_as(folder / f"slice{number}")
    return folder


@pytest.fixture
def a_folder(tmp_path):
    """Three images of two patients, a series of a third one, and what is none of them."""
    folder = tmp_path / "images"
    for seed, name in enumerate(("anna_visit2.nii.gz", "anna_visit1.nii.gz", "bert.nrrd")):
        write_image(an_image(seed), folder / name)
    write_image(an_image(9), folder / ".hidden.nii.gz")
    (folder / "bert.seg.nrrd").write_bytes(b"a mask")
    (folder / "notes.txt").write_text("not an image")
    a_series(folder / "export" / "study 1", "C-7 ")
    (folder / "export" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "empty").mkdir()
    return folder


def test_the_cases_of_a_folder_are_its_images_and_its_series(a_folder):
    cases = cases_in(a_folder)
    assert [case.name for case in cases] == ["anna_visit1", "anna_visit2", "bert", "export study 1"]
    assert [patient_at(case) for case in cases] == ["anna", "anna", "bert", "C-7"]
    assert len({case.key for case in cases}) == 4 and all(len(case.key) == 32 for case in cases)
    assert read_image(cases[3].path).array.shape == (1, 3, 128, 128)
    (alone,) = cases_in(a_folder / "export" / "study 1")
    assert alone.name == "study 1"
    with pytest.raises(BadInput, match="no folder"):
        cases_in(a_folder / "nowhere")


def test_what_was_decided_is_there_again_and_names_nobody(a_folder, tmp_path):
    before = sorted(a_folder.rglob("*"))
    first, second = cases_in(a_folder)[:2]
    marks = Marks(tmp_path / "kept", str(a_folder))
    assert marks.state(first.key) == "todo"
    marks.set(first.key, "accepted")
    marks.set(second.key, "skipped")
    again = Marks(tmp_path / "kept", str(a_folder))
    assert [again.state(case.key) for case in (first, second)] == ["accepted", "skipped"]
    assert Marks(tmp_path / "kept", str(a_folder.parent)).state(first.key) == "todo"
    (file,) = (tmp_path / "kept").iterdir()
    assert "anna" not in file.read_text() + file.name and "images" not in file.name
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(a_folder.rglob("*")) == before
    file.write_text('{"states": {"x": "burnt"}}')
    with pytest.raises(RefSegError, match="damaged"):
        Marks(tmp_path / "kept", str(a_folder))
    nowhere = Marks(tmp_path / "file" / "kept", str(a_folder))
    (tmp_path / "file").touch()
    with pytest.raises(RefSegError, match="could not be kept"):
        nowhere.set(first.key, "accepted")
    assert nowhere.state(first.key) == "todo"


def test_a_case_is_one_persons_until_the_lease_is_over(a_folder, tmp_path, monkeypatch):
    listed = ServedWorklist(tmp_path / "home", a_folder)
    first = listed.cases("anna")[0].id
    case, new = listed.take("anna", first)
    assert new and case.mine and case.held and case.by == "anna"
    assert not listed.take("anna", first)[1]
    with pytest.raises(Taken, match="anna works on this case"):
        listed.take("bert", first)
    again = ServedWorklist(tmp_path / "home", a_folder)  # the service was killed and is back
    with pytest.raises(Taken):
        again.take("bert", first)
    with pytest.raises(Taken, match="Take this case first"):
        again.decide("bert", first, "accepted")
    clock = time.time()
    monkeypatch.setattr("time.time", lambda: clock + LEASE + 1)
    with pytest.raises(Taken):
        again.decide("anna", first, "accepted")
    assert again.take("bert", first)[1]
    assert vars(again.decide("bert", first, "leave")) | {"id": "", "name": ""} == {
        "id": "",
        "name": "",
        "state": "todo",
        "by": "",
        "held": False,
        "mine": False,
    }
    assert again.take("anna", first)[1]
    assert vars(again.decide("anna", first, "accepted")) | {"id": ""} == {
        "id": "",
        "name": "anna_visit1",
        "state": "accepted",
        "by": "anna",
        "held": False,
        "mine": False,
    }
    (tmp_path / "home" / "service" / "worklist.json").write_text("{")
    with pytest.raises(RefSegError, match="damaged"):
        ServedWorklist(tmp_path / "home", a_folder)
    with pytest.raises(BadInput, match="no folder"):
        ServedWorklist(tmp_path / "elsewhere", tmp_path / "nowhere")


def test_an_image_is_among_the_uploads_of_whoever_took_it_and_errors_tell_no_path(a_folder, tmp_path):
    listed, uploads = ServedWorklist(tmp_path / "home", a_folder), Uploads(tmp_path / "home")
    broken = a_folder / "zoe.nii.gz"
    broken.write_bytes((a_folder / "anna_visit1.nii.gz").read_bytes()[:-200])
    listed = ServedWorklist(tmp_path / "home", a_folder)
    by_name = {case.name: case.id for case in listed.cases("anna")}
    for _ in range(2):  # the second time it is there already
        about, stream = listed.packed(by_name["bert"], "anna", uploads)
        with stream:
            assert len(stream.read()) == about.packed
    assert np.array_equal(uploads.load("anna", about.id).array, an_image(2).array)
    with pytest.raises(BadInput, match="'zoe'") as told:
        listed.packed(by_name["zoe"], "anna", uploads)
    assert str(a_folder) not in str(told.value)


@pytest.fixture
def a_site(a_folder, tmp_path):
    """A running service with the folder as its worklist, and clients of two annotators and a reviewer."""
    home = tmp_path / "home"
    service = RunningService(home, "--worklist", str(a_folder)).start()
    accounts = Accounts(home)
    clients = {}
    for name, role in (("anna", Role.ANNOTATOR), ("bert", Role.ANNOTATOR), ("rita", Role.REVIEWER)):
        accounts.add(name, role)
        clients[name] = Client(service.url, accounts.give_token(name))
    yield service, clients
    for client in clients.values():
        client.close()
    service.kill()


def test_a_site_gives_its_cases_to_one_person_each(a_site, a_folder):
    service, clients = a_site
    anna, bert, rita = clients["anna"], clients["bert"], clients["rita"]
    cases = anna.worklist()
    assert [case["name"] for case in cases] == ["anna_visit1", "anna_visit2", "bert", "export study 1"]
    assert str(a_folder) not in json.dumps(cases)
    first, second, *_, series = [case["id"] for case in cases]
    with pytest.raises(Elsewhere, match="Take this case first"):
        anna.worklist_volume(first)
    taken = anna.worklist_state(first, "take")
    assert taken["mine"] and taken["patient"] == "anna" and taken["lease"] == LEASE
    with pytest.raises(Elsewhere, match="anna works on this case"):
        bert.worklist_state(first, "take")
    for ask in (bert.worklist_volume, lambda case: bert.worklist_state(case, "skipped")):
        with pytest.raises(Elsewhere):
            ask(first)
    told = []
    volume = anna.worklist_volume(first, Progress(lambda fraction, message: told.append(fraction)))
    assert np.array_equal(volume.array, an_image(1).array) and volume.grid.same_as(GRID, 1e-6) and told[-1] == 1
    asked = []
    anna.ask = lambda *values, **options: asked.append(values[0]) or anna._transport.ask(*values, **options)
    anna.upload(volume)
    assert asked == ["GET"]  # the service has the image already
    with pytest.raises(Denied, match="may not accept"):
        anna.worklist_state(first, "accepted")
    assert anna.worklist_state(first, "skipped")["state"] == "skipped"
    service.kill()
    service.start()
    with Client(service.url, service.token) as administrator:
        assert [case["state"] for case in administrator.worklist()] == ["skipped", "todo", "todo", "todo"]
        administrator.worklist_state(series, "take")
        assert administrator.worklist_volume(series).array.shape == (1, 3, 128, 128)
        administrator.worklist_state(series, "leave")
    with Client(service.url, rita._transport._token) as rita:
        rita.worklist_state(second, "take")
        assert rita.worklist_state(second, "accepted")["by"] == "rita"
    logged = [(e.who, e.action, e.about.case) for e in AuditLog(service.home).entries() if e.about.case]
    assert logged == [
        ("anna", Action.ANNOTATE, first),
        ("anna", Action.ANNOTATE, first),
        ("tester", Action.ANNOTATE, series),
        ("tester", Action.ANNOTATE, series),
        ("rita", Action.ANNOTATE, second),
        ("rita", Action.ACCEPT, second),
    ]


def test_what_is_no_case_and_a_service_without_a_list_are_told(a_site, tmp_path):
    service, clients = a_site
    for call in (clients["anna"].worklist_volume, lambda case: clients["anna"].worklist_state(case, "take")):
        with pytest.raises(NotFound, match="no such case"):
            call("0" * 32)
    with service.client() as plain:
        for path in ("/v1/worklist/..%2F..%2Fetc/volume", "/v1/worklist/bert.nrrd/volume"):
            assert plain.get(path).status_code in (400, 404)
        answer = plain.post(f"/v1/worklist/{'0' * 32}", json={"state": "burnt"})
        assert answer.status_code == 400 and "state" in answer.json()["error"]
    other = RunningService(tmp_path / "other").start()
    with Client(other.url, other.token) as client, pytest.raises(NotFound, match="--worklist DIR"):
        client.worklist()
    other.kill()


def test_a_large_image_is_cancelled_on_its_way(tmp_path):
    (tmp_path / "images").mkdir()
    write_image(an_image(5, (64, 300, 330)), tmp_path / "images" / "large.nii")
    service = RunningService(tmp_path / "home", "--worklist", str(tmp_path / "images")).start()
    seen = []
    progress = Progress(lambda fraction, message: seen.append(fraction), lambda: len(seen) >= 2)
    with Client(service.url, service.token) as client:
        (case,) = client.worklist()
        client.worklist_state(case["id"], "take")
        with pytest.raises(Cancelled):
            client.worklist_volume(case["id"], progress)
        assert len(seen) == 2 and seen[-1] < 1
        assert client.worklist_volume(case["id"]).grid.shape == (64, 300, 330)
    service.kill()


def an_answer(content):
    return httpx.Response(200, content=content)


def test_an_answer_that_is_not_the_image_it_claims_to_be_is_refused(tmp_path, a_folder):
    listed, uploads = ServedWorklist(tmp_path / "home", a_folder), Uploads(tmp_path / "home")
    about, stream = listed.packed(listed.cases("anna")[0].id, "anna", uploads)
    with stream:
        content = about.model_dump_json().encode() + b"\n" + stream.read()
    assert download.received(an_answer(content), SILENT).grid.same_as(GRID, 1e-6)
    head, _, body = content.partition(b"\n")
    larger = json.loads(head) | {"shape": [1, 2**12, 2**12, 2**12]}
    other = json.loads(head) | {"id": "0" * 64}
    wrong = {
        "cut short": content[:-1],
        "longer": content + b"x",
        "nothing": b"",
        "no head": b"x" * 2**18,
        "flipped": content[:-30] + bytes([content[-30] ^ 1]) + content[-29:],
        "too large": json.dumps(larger).encode() + b"\n" + body,
        "another": json.dumps(other).encode() + b"\n" + body,
    }
    for what, bad in wrong.items():
        with pytest.raises(ServiceError):
            pytest.fail(f"{what} was taken: {download.received(an_answer(bad), SILENT)}")
