"""The client against the real service in a process of its own: volumes, jobs, sessions, learning; answers get lost."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from InteractiveLearningLib.prompts import Click, Limits, Outline
from InteractiveLearningLib.service import client as client_module
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.client import Client, sendable, test_connection
from InteractiveLearningLib.service.failures import Denied, NotFound, NotTrusted, Unreachable, WrongServer
from InteractiveLearningLib.service.local import LocalService
from InteractiveLearningLib.service.remote import RemoteRunner
from InteractiveLearningLib.service.remote_session import RemoteSession
from InteractiveLearningLib.session import Session
from RefSegLib.errors import BadInput, Cancelled, RefSegError
from RefSegLib.models.spec import Label
from RefSegLib.progress import Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_labels, write_image
from RefSegLib.volume.volume import Volume
from running_service import RunningService
from service_sockets import Relay, a_certificate, an_http_server

GRID = Grid((20, 30, 28), (1.5, 1.0, 0.9), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), (-5.0, 3.0, 12.0))
LABELS = [Label(value=1, name="bright", color=(1, 0, 0)), Label(value=4, name="dim", color=(0, 1, 0))]
BRIGHT, DIM, AWAY = (10, 9, 8), (10, 21, 20), (2, 2, 25)


def an_image(seed):
    from benchmarks.tiny_learning import an_image as two_balls

    return two_balls(seed, GRID)


def a_large_image(seed):
    """12 MB that do not compress: three chunks at least."""
    noise = np.random.default_rng(seed).integers(-30000, 30000, (64, 300, 330), np.int16)
    return Volume(noise, Grid(noise.shape))


@pytest.fixture(scope="module")
def a_service(tmp_path_factory):
    """A running service with a tiny model."""
    from benchmarks.tiny_learning import an_untrained_version

    home = tmp_path_factory.mktemp("home")
    an_untrained_version(home)
    service = LocalService(home)
    service.client()
    yield service
    service.leave()


@pytest.fixture
def a_client(a_service):
    return a_service.client()


@pytest.fixture
def a_relay(a_service):
    """A way to the service that can lose what passes, and a client that goes this way."""
    about = a_service._told()
    relay = Relay(int(about["url"].rpartition(":")[2]))
    with an_http_server(relay.pass_on) as port, Client(f"http://127.0.0.1:{port}", about["token"]) as client:
        client.hello()
        relay.client = client
        yield relay


# Volumes


def test_a_volume_is_sent_in_chunks_once_and_never_again(a_relay):
    image, told = a_large_image(1), []
    identifier = a_relay.client.upload(image, Progress(lambda fraction, message: told.append(fraction)))
    chunks = [line for line in a_relay.passed if line.startswith("PUT")]
    assert len(chunks) >= 3 and told == sorted(told)
    a_relay.passed.clear()
    assert a_relay.client.upload(image) == identifier
    assert not [line for line in a_relay.passed if line.startswith(("PUT", "POST"))]


def test_an_upload_that_was_canceled_goes_on_where_it_was(a_relay):
    image = a_large_image(2)
    stop = threading.Event()

    def report(fraction, message):
        if sum(line.startswith("PUT") for line in a_relay.passed) == 2:
            stop.set()

    with pytest.raises(Cancelled):
        a_relay.client.upload(image, Progress(report, stop.is_set))
    a_relay.passed.clear()
    a_relay.client.upload(image)
    offsets = [int(line.rpartition("=")[2]) for line in a_relay.passed if line.startswith("PUT")]
    assert offsets and offsets[0] >= 2 * 2**22


@pytest.mark.parametrize("loss", ["request", "answer"])
def test_an_upload_goes_on_although_chunks_and_answers_get_lost(a_relay, loss):
    a_relay.lose(loss, "PUT", times=2)
    a_relay.lose(loss, "POST")
    image = a_large_image(3 + len(loss))
    identifier = a_relay.client.upload(image)
    assert a_relay.client.ask("GET", f"/volumes/{identifier}")["complete"]


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint32", "uint64", "bool", ">i2", ">f8"])
def test_voxels_of_every_type_are_sent(a_client, dtype):
    array = (np.arange(2 * 3 * 4).reshape(2, 3, 4) % 7).astype(dtype)
    image = Volume(array, Grid((2, 3, 4)))
    assert np.array_equal(sendable(image).array, image.array.astype(np.float64))
    assert len(a_client.upload(image)) == 64


def test_numbers_too_large_for_whole_numbers_become_floating():
    image = Volume(np.full((1, 1, 2), 2**40, np.int64), Grid((1, 1, 2)))
    assert sendable(image).array.dtype == np.float32


# Segmenting


def test_segmenting_there_gives_what_segmenting_here_gives(a_service, a_client):
    from RefSegLib.engine import Engine, suspect_map
    from RefSegLib.models.store import ModelStore

    image, _ = an_image(1)
    job = RemoteRunner(a_client).segment(image, "balls", suspect=True)
    told, found = [], []
    job.progressed.connect(lambda fraction, message: told.append(fraction))
    job.finished.connect(found.append)
    job.failed.connect(found.append)
    job.wait()
    expected = Engine(ModelStore(a_service.home).load("balls")).segment(image)
    assert expected.labels.array.any() and np.array_equal(found[0].labels.array, expected.labels.array)
    assert found[0].names == tuple(expected.names) and found[0].labels.grid == image.grid
    np.testing.assert_allclose(found[0].suspect.array, suspect_map(expected).array, atol=1e-3)
    assert found[0].report["images"] and told == sorted(told)
    assert not a_client.jobs()  # nothing is left there


def test_a_segmentation_is_canceled_on_the_server_too(a_client):
    image = a_large_image(9)
    job = RemoteRunner(a_client).segment(image, "balls")
    started, ended = threading.Event(), []
    job.progressed.connect(lambda fraction, message: started.set() if fraction >= 0.2 else None)
    job.failed.connect(ended.append)
    while not started.is_set():
        assert job.poll()
        time.sleep(0.01)
    job.cancel()
    job.poll()
    assert isinstance(ended[0], Cancelled)
    assert all(one["state"] in ("cancelled", "running") for one in a_client.jobs())


@pytest.mark.parametrize(
    ("model", "kind", "told"), [("no-such-model", RefSegError, "no-such-model"), ("../balls", BadInput, "model")]
)
def test_what_cannot_be_segmented_is_told_in_the_servers_words(a_client, model, kind, told):
    failed = []
    job = RemoteRunner(a_client).segment(an_image(1)[0], model)
    job.failed.connect(failed.append)
    job.wait()
    assert isinstance(failed[0], kind) and told in str(failed[0]) and "Traceback" not in str(failed[0])


# Sessions


def an_outline(labels, index, value, of):
    return Outline.on(GRID, 0, index, labels.array[index] == of, value)


def a_script(labels):
    """What somebody says, step after step, with what is protected meanwhile."""
    locked = np.ones(GRID.shape, bool)
    locked[:5] = False
    return [
        ([Limits.on(GRID, 0, 5, 15, 1)], {}),
        ([an_outline(labels, n, 1, 1) for n in (8, 10, 12)], {}),
        ([Click(tuple(GRID.to_world(DIM)), True, 4, 0)], {"locked": [1]}),
        ([Click(tuple(GRID.to_world(BRIGHT)), True, 1, 0)], {"editable": locked}),
    ]


@pytest.mark.parametrize("begun", ["from nothing", "from a mask"])
def test_a_session_there_is_bit_for_bit_a_session_here(a_client, tmp_path, begun):
    image, labels = an_image(4)
    mask = probabilities = None
    if begun == "from a mask":
        mask = np.where(labels.array == 2, 4, labels.array).astype(np.uint8)
        mask[:9] = 0
        certain = np.float16(0.9), np.float16((1 - 0.9) / 2)
        probabilities = np.stack([np.where(mask == value, *certain) for value in (0, 1, 4)])
    with (
        Session.create(tmp_path / "here", image, LABELS, probabilities) as here,
        RemoteSession.create(a_client, image, LABELS, mask) as there,
    ):

        def same():
            assert np.array_equal(there.labels().array, here.labels().array)
            assert (there.undo_name, there.redo_name) == (here.undo_name, here.redo_name)
            assert there.prompts() == here.prompts()

        same()
        for prompts, options in a_script(labels):
            assert there.apply(prompts, **options) == here.apply(prompts, **options)
            same()
        for _ in range(2):
            assert there.undo() == here.undo()
            same()
        assert there.redo() == here.redo()
        same()
        assert there.handiest_axis() == here.handiest_axis()
        assert there.propose_limits(4) == here.propose_limits(4)
        assert there.estimated_dice(1) == here.result(1).estimated_dice and there.estimated_dice(4) is None
        doubt = np.zeros(GRID.shape, np.float32)
        doubt[14] = 0.5
        ours, theirs = here.suggest(1, 0, doubt), there.suggest(1, 0, doubt)
        assert (ours.index, ours.reason, ours.gap) == (theirs.index, theirs.reason, theirs.gap)
        np.testing.assert_allclose(theirs.residual, ours.residual, atol=1e-3)
        assert len(there.export_log()) == len(here.export_log())

        again = RemoteSession.open(a_client, there.id)
        assert np.array_equal(again.labels().array, here.labels().array) and again.prompts() == here.prompts()
        assert again.grid == GRID and again.structures == here.structures
        assert again.undo() == here.undo() and again.prompts() == here.prompts()
        assert again.redo() == here.redo() and again.prompts() == here.prompts()
        again.discard()
        with pytest.raises(NotFound):
            there.undo()


def test_what_a_session_refuses_is_told_in_its_words_and_changes_nothing(a_client):
    with RemoteSession.create(a_client, an_image(4)[0], LABELS) as session:
        click = Click(tuple(GRID.to_world(BRIGHT)), True, 1, 0)
        with pytest.raises(BadInput, match="nothing to undo"):
            session.undo()
        with pytest.raises(BadInput, match="'bright' is locked"):
            session.apply(click, locked=[1])
        with pytest.raises(BadInput, match="outside"):
            session.apply(click, editable=np.zeros(GRID.shape, bool))
        with pytest.raises(BadInput, match="does not fit"):
            session.apply(click, editable=np.ones((2, 2, 2), bool))
        with pytest.raises(BadInput, match="at least one"):
            session.apply([])
        assert not session.labels().array.any() and session.prompts() == []
        assert session.apply(click) is not None and session.labels().array.any()
        session.discard()


@pytest.mark.parametrize("loss", ["request", "answer"])
def test_a_prompt_whose_answer_was_lost_enters_exactly_once(a_relay, tmp_path, loss):
    image, labels = an_image(5)
    session = RemoteSession.create(a_relay.client, image, LABELS)
    with Session.create(tmp_path / "here", image, LABELS) as here:
        for prompts, options in a_script(labels):
            a_relay.lose(loss, "/prompts")
            assert session.apply(prompts, **options) == here.apply(prompts, **options)
            assert np.array_equal(session.labels().array, here.labels().array) and session.prompts() == here.prompts()
        for step in ("undo", "undo", "redo"):
            a_relay.lose(loss, f"/{step}")
            assert getattr(session, step)() == getattr(here, step)()
            assert np.array_equal(session.labels().array, here.labels().array) and session.prompts() == here.prompts()
        assert len(session.export_log()) == len(here.export_log())
    session.discard()


def test_after_a_failure_nobody_knows_the_outcome_of_the_session_catches_up(a_relay, tmp_path):
    """The answer is lost, and then so is every answer to what became of it."""
    image, labels = an_image(6)
    (first, options), (second, _) = a_script(labels)[:2]
    session = RemoteSession.create(a_relay.client, image, LABELS)
    a_relay.client._transport.patience = 0.5
    a_relay.lose("answer", "/prompts")
    a_relay.lose("answer", "/log", times=50)
    with pytest.raises(Unreachable):
        session.apply(first, **options)
    a_relay._losses.clear()
    with Session.create(tmp_path / "here", image, LABELS) as here:
        here.apply(first)
        assert session.apply(second) == here.apply(second)
        assert np.array_equal(session.labels().array, here.labels().array) and session.prompts() == here.prompts()
    session.discard()


def test_a_session_is_kept_alive_while_it_is_open(a_relay):
    session = RemoteSession.create(a_relay.client, an_image(7)[0], LABELS)
    state = a_relay.client.ask("GET", f"/sessions/{session.id}")
    impatient = RemoteSession(a_relay.client, session.id, 0.15, state, 1)  # the service's own lease is a minute
    for _ in range(500):
        if any("/alive" in line for line in a_relay.passed):
            break
        time.sleep(0.02)
    else:
        pytest.fail("There was no sign of life.")
    impatient.close()
    impatient._keeper.join(10)
    assert not impatient._keeper.is_alive()
    session.discard()


# Learning


def test_a_session_is_accepted_learnt_from_and_forgotten(a_service, a_client):
    image, labels = an_image(8)
    spoken = [label.model_copy(update={"value": n}) for n, label in enumerate(LABELS, start=1)]
    session = RemoteSession.create(a_client, image, spoken)
    session.apply([an_outline(labels, n, 1, 1) for n in (8, 10, 12)])
    case = session.accept("balls", "patient 9")
    assert re.fullmatch("[0-9a-f]{32}", case)
    with pytest.raises(NotFound):
        session.undo()
    assert a_client.learning("balls")["active"] == "1"
    assert [model["name"] for model in a_client.models() if model["active"] == "1"]
    assert a_client.activate("balls", "1") == "1"
    assert a_client.review("balls", "1", accepted=True)["rolled_back"] is False
    assert a_client.forget("patient 9")["versions"] == []
    with pytest.raises(RefSegError, match="no-such"):
        a_client.learning("no-such")
    actions = [entry["action"] for entry in a_client.audit(last=4)]
    assert "accept" in actions and "forget" in actions


def test_an_acceptance_whose_answer_was_lost_is_kept_once(a_relay, a_service):
    from InteractiveLearningLib.replay import ReplayStore

    image, labels = an_image(10)
    spoken = [label.model_copy(update={"value": n}) for n, label in enumerate(LABELS, start=1)]
    for loss in ("answer", "request"):
        session = RemoteSession.create(a_relay.client, image, spoken)
        session.apply([an_outline(labels, 10, 1, 1)])
        a_relay.lose(loss, "/accept")
        assert session.accept("balls", f"patient {loss}") == session.id
    replay = ReplayStore(a_service.home)
    assert len(replay.cases("balls")) == 2
    replay.close()
    for loss in ("answer", "request"):
        a_relay.client.forget(f"patient {loss}")


# A site's server


@pytest.fixture(scope="module")
def a_site(tmp_path_factory):
    """A server with a certificate of its own, a tiny model and two users; gives (url, certificate, {role: token})."""
    from benchmarks.tiny_learning import an_untrained_version

    home = tmp_path_factory.mktemp("site")
    an_untrained_version(home)
    certificate, key = a_certificate(home)
    site = RunningService(home, "--tls-cert", str(certificate), "--tls-key", str(key))
    Accounts(home).add("ann", Role.ANNOTATOR)
    tokens = {Role.ADMINISTRATOR: site.token, Role.ANNOTATOR: Accounts(home).give_token("ann")}
    yield site.start().url, certificate, tokens
    site.end()


def test_a_connection_to_a_sites_server_is_tested_with_its_certificate_and_token(a_site, monkeypatch):
    monkeypatch.setattr(client_module, "TEST_SECONDS", 100.0)  # this computer may have its hands full
    url, certificate, tokens = a_site
    found = test_connection(url, tokens[Role.ANNOTATOR], certificate)
    assert found.ok, found.sentence
    assert found.version and "knows the token: it is ann's, annotator" in found.sentence
    assert (found.name, found.role) == ("ann", "annotator")
    unknown = test_connection(url, "0123456789ab.wrong", certificate)
    assert not unknown.ok and "token" in unknown.sentence and unknown.version == found.version
    assert "is signed by itself" in test_connection(url, tokens[Role.ANNOTATOR]).sentence
    with pytest.raises(WrongServer, match="https://"):
        Client(url.replace("https", "http"), tokens[Role.ANNOTATOR]).hello()
    with pytest.raises(NotTrusted, match="another name"):
        Client(url.replace("127.0.0.1", "localhost"), tokens[Role.ANNOTATOR], certificate=certificate).hello()


def test_what_a_role_may_not_do_is_told(a_site):
    url, certificate, tokens = a_site
    denied = pytest.raises(Denied, match="As annotator you may not read audit")
    with Client(url, tokens[Role.ANNOTATOR], certificate=certificate) as client, denied:
        client.audit()
    with Client(url, tokens[Role.ADMINISTRATOR], certificate=certificate) as client:
        assert isinstance(client.audit(), list)


def test_the_example_of_the_readme_runs(a_site, tmp_path):
    url, certificate, tokens = a_site
    write_image(an_image(5)[0], tmp_path / "head.nii.gz")
    example = re.search(r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.S)[1]
    for theirs, ours in (
        ("https://segment.example.org:8443", url),
        ("head.nii.gz", str(tmp_path / "head.nii.gz")),
        ("head.seg.nrrd", str(tmp_path / "head.seg.nrrd")),
        ("site.pem", str(certificate)),
        ('"hippocampus"', '"balls"'),
        ("token, ", f"{tokens[Role.ANNOTATOR]!r}, "),
    ):
        assert theirs in example
        example = example.replace(theirs, ours)
    run = subprocess.run([sys.executable, "-c", example], check=False, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr
    assert "it is ann's, annotator" in run.stdout
    assert read_labels(tmp_path / "head.seg.nrrd").grid.same_as(GRID)


def test_the_client_needs_no_torch_and_no_server():
    names = ["torch", "monai", "openvino", "fastapi", "uvicorn", "starlette", "slicer", "qt"]
    modules = ["client", "remote", "remote_session", "local"]
    code = f"import sys; sys.modules.update(dict.fromkeys({names!r}))\n"
    code += "\n".join(f"import InteractiveLearningLib.service.{module}" for module in modules)
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
