"""What the client says when a server cannot be talked to: real sockets that fail as networks do."""

import re
import socket
import threading
import time

import pytest
from InteractiveLearningLib.service import failures, transport
from InteractiveLearningLib.service.client import Client, test_connection
from InteractiveLearningLib.service.failures import Busy, NotTrusted, ServiceError, Unreachable, WrongServer
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.progress import Progress
from service_sockets import HELLO, a_certificate, a_tcp_server, an_http_server, said

TOKEN = "0123456789ab.abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def a_closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def refused(kind, url, *, token=TOKEN, **options):
    """The sentence with which a client gives up. It names where, and is for people."""
    with pytest.raises(kind) as caught, Client(url, token, **({"timeout": 2.0} | options)) as client:
        client.jobs()
    sentence = str(caught.value)
    assert re.fullmatch(r"[A-Z'h].*[.?]", sentence) and "Errno" not in sentence and TOKEN not in sentence
    return sentence


def hello_only(method, path, headers, body):
    return said(HELLO) if path == "/hello" else said({"jobs": [], "name": "ann", "role": "annotator"})


def test_nobody_answers_at_a_closed_port(a_closed_port):
    started = time.monotonic()
    sentence = refused(Unreachable, f"http://127.0.0.1:{a_closed_port}")
    assert f"Nothing answers at http://127.0.0.1:{a_closed_port}" in sentence
    assert time.monotonic() - started < transport.PATIENCE_SECONDS / 2  # a server nobody has met is not waited for


def test_a_name_that_is_no_host():
    assert "no server named 'no-such-host.invalid'" in refused(Unreachable, "https://no-such-host.invalid:8443")


def test_a_server_that_says_nothing_in_time():
    with a_tcp_server(lambda connection: connection.recv(65536) and time.sleep(3)) as port:
        sentence = refused(Unreachable, f"http://127.0.0.1:{port}", timeout=0.3)
        assert "did not answer in time" in sentence
        assert "did not answer in time" in refused(Unreachable, f"https://127.0.0.1:{port}", timeout=0.3)


def test_a_server_that_talks_something_else():
    def greet(connection):
        connection.sendall(b"220 mail.example.org ESMTP ready\r\n\r\n")
        connection.recv(1024)

    with a_tcp_server(greet) as port:
        assert "is no RefSeg server" in refused(WrongServer, f"http://127.0.0.1:{port}")
        assert "does not speak https" in refused(WrongServer, f"https://127.0.0.1:{port}")


def test_a_server_that_hangs_up():
    with a_tcp_server(lambda connection: connection.recv(1024)) as port:
        assert "ended the connection without an answer" in refused(Unreachable, f"http://127.0.0.1:{port}")


def test_http_to_a_server_that_wants_https_and_the_reverse(tmp_path):
    files = a_certificate(tmp_path)
    with an_http_server(hello_only, files) as port:
        assert "Write https:// instead of http://" in refused(WrongServer, f"http://127.0.0.1:{port}")
    with an_http_server(hello_only) as port:
        assert "does not speak https" in refused(WrongServer, f"https://127.0.0.1:{port}")


def test_a_certificate_is_trusted_only_if_it_was_chosen(tmp_path):
    files = a_certificate(tmp_path)
    with an_http_server(hello_only, files) as port:
        url = f"https://127.0.0.1:{port}"
        assert "is signed by itself" in refused(NotTrusted, url)
        with Client(url, TOKEN, certificate=files[0]) as client:
            assert client.jobs() == []
        other = tmp_path / "other"
        other.mkdir()
        assert "certificate" in refused(NotTrusted, url, certificate=a_certificate(other)[0])


def test_a_certificate_in_its_binary_form_is_read_too(tmp_path):
    import ssl

    files = a_certificate(tmp_path)
    binary = tmp_path / "cert.der"
    binary.write_bytes(ssl.PEM_cert_to_DER_cert(files[0].read_text()))
    with (
        an_http_server(hello_only, files) as port,
        Client(f"https://127.0.0.1:{port}", TOKEN, certificate=binary) as client,
    ):
        assert client.jobs() == []


@pytest.mark.parametrize(
    ("name", "days", "told"),
    [
        ("127.0.0.1", (-20, -10), "has expired"),
        ("127.0.0.1", (10, 20), "not valid yet"),
        ("server.example.org", (-1, 10), "is for another name"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused_even_if_chosen(tmp_path, name, days, told):
    files = a_certificate(tmp_path, name, days)
    with an_http_server(hello_only, files) as port:
        assert told in refused(NotTrusted, f"https://127.0.0.1:{port}", certificate=files[0])


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nnonsense\n"])
def test_a_file_that_is_no_certificate_is_refused(tmp_path, content):
    file = tmp_path / "site.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=r"site\.pem' .*Choose another"):
        Client("https://127.0.0.1:1", TOKEN, certificate=file)


def test_a_proxy_that_wants_a_password_or_cannot_go_on(monkeypatch):
    answers = iter([(407, {"Proxy-Authenticate": "Basic"}, b""), (502, {}, b"")])
    with an_http_server(lambda *_: next(answers)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        sentence = refused(Unreachable, "https://segment.example.org")
        assert "The proxy on the way to https://segment.example.org refused: 407" in sentence
        assert "refused: 502" in refused(Unreachable, "https://segment.example.org")


def test_the_way_to_this_computer_goes_through_no_proxy(monkeypatch, a_closed_port):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{a_closed_port}")
    with an_http_server(hello_only) as port, Client(f"http://127.0.0.1:{port}", TOKEN) as client:
        assert client.jobs() == []


def test_a_proxy_of_the_environment_that_is_none_is_told(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://nowhere")
    with pytest.raises(BadInput, match="The proxy of the environment"):
        Client("https://segment.example.org", TOKEN)


def test_an_answer_without_our_header_is_not_our_servers(tmp_path):
    with an_http_server(lambda *_: (200, {}, b'{"service": "refseg", "api": [1]}')) as port:
        assert "is no RefSeg server" in refused(WrongServer, f"http://127.0.0.1:{port}")
    with an_http_server(lambda *_: (302, {"Location": "https://login.example.org/"}, b"")) as port:
        assert "sends elsewhere, to https://login.example.org/" in refused(WrongServer, f"http://127.0.0.1:{port}")
    with an_http_server(lambda *_: (502, {}, b"<html>Bad gateway</html>")) as port:
        assert "cannot reach the server (status 502)" in refused(Unreachable, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("api", "told"), [([99], "update this RefSeg"), ([0], "update the server"), ([], "update the")]
)
def test_versions_that_have_nothing_in_common_say_which_side_to_update(api, told):
    with an_http_server(lambda *_: said(HELLO | {"api": api})) as port:
        sentence = refused(WrongServer, f"http://127.0.0.1:{port}")
    assert told in sentence and "this RefSeg speaks 1" in sentence


@pytest.mark.parametrize("hello", [{}, [], {"service": "refseg"}, {"service": "refseg", "api": "1"}, {"service": "x"}])
def test_a_greeting_that_is_not_understood_is_no_refseg_server(hello):
    with an_http_server(lambda *_: said(hello)) as port:
        assert "is no RefSeg server" in refused(WrongServer, f"http://127.0.0.1:{port}")


def test_an_answer_that_left_something_out_is_told_and_no_traceback():
    with an_http_server(lambda _, path, *__: said(HELLO if path == "/hello" else {"work": 1})) as port:
        assert "answers otherwise than this RefSeg expects" in refused(WrongServer, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("status", "kind", "headers"),
    [(401, failures.Denied, {}), (403, failures.Denied, {}), (404, failures.NotFound, {}), (400, BadInput, {}),
     (413, BadInput, {}), (507, ServiceError, {}), (500, ServiceError, {}), (429, Busy, {"Retry-After": "600"})],
)  # fmt: skip
def test_what_the_server_says_in_a_sentence_arrives_as_it_is(status, kind, headers):
    def answer(_, path, *__):
        if path == "/hello":
            return said(HELLO)
        return status, {"X-RefSeg-API": "1", **headers}, b'{"error": "The sentence of the server."}'

    with an_http_server(answer) as port:
        assert refused(kind, f"http://127.0.0.1:{port}") == "The sentence of the server."


def test_a_busy_server_is_asked_again_and_given_up_in_time():
    asked = []

    def busy_at_first(_, path, *__):
        if path == "/hello":
            return said(HELLO)
        asked.append(time.monotonic())
        full = 503, {"X-RefSeg-API": "1", "Retry-After": "0"}, b'{"error": "As many as there is room for are open."}'
        return said({"jobs": [{"id": "1"}]}) if len(asked) == 3 else full

    with an_http_server(busy_at_first) as port:
        with Client(f"http://127.0.0.1:{port}", TOKEN, patience=10) as client:
            assert client.jobs() == [{"id": "1"}]
        assert len(asked) == 3 and asked[2] - asked[1] > asked[1] - asked[0]
        assert "room" in refused(Busy, f"http://127.0.0.1:{port}", patience=1)


def test_waiting_for_a_busy_server_can_be_canceled():
    def busy(_, path, *__):
        full = 503, {"X-RefSeg-API": "1", "Retry-After": "30"}, b'{"error": "Full."}'
        return said(HELLO) if path == "/hello" else full

    stop = threading.Event()
    with an_http_server(busy) as port, Client(f"http://127.0.0.1:{port}", TOKEN, patience=60) as client:
        threading.Timer(0.2, stop.set).start()
        started = time.monotonic()
        with pytest.raises(Cancelled):
            client.ask("GET", "/jobs", progress=Progress(cancelled=stop.is_set))
        assert time.monotonic() - started < 10


def test_only_requests_that_do_no_harm_twice_are_sent_again_when_the_answer_is_lost():
    asked = []

    def forgetful(method, path, *_):
        if path == "/hello":
            return said(HELLO)
        asked.append(method)
        return said({"active": "3", "jobs": []}) if asked.count(method) > 2 else None

    with an_http_server(forgetful) as port, Client(f"http://127.0.0.1:{port}", TOKEN) as client:
        assert client.jobs() == [] and asked == ["GET"] * 3
        with pytest.raises(Unreachable, match="was lost") as caught:
            client.roll_back("balls")
        assert caught.value.sent and asked.count("POST") == 1


@pytest.mark.parametrize(
    "url",
    ["http://10.1.2.3:8000", "http://segment.example.org", "segment.example.org:8443", "ftp://example.org", "https://",
     "", "https://name:secret@example.org", "https://example.org/?a=b", "http://[::1", "http://127.0.0.1.example.org"],
)  # fmt: skip
def test_addresses_over_which_no_token_may_go_are_refused(url):
    with pytest.raises(BadInput) as caught:
        Client(url, TOKEN)
    assert "https://" in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nHost: b", "tökn", "x" * 600])
def test_a_token_that_can_be_none_is_refused(token):
    with pytest.raises(BadInput, match="Copy it again"):
        Client("http://127.0.0.1:1", token)


def test_a_client_that_was_closed_meanwhile_says_so():
    with an_http_server(hello_only) as port:
        client = Client(f"http://127.0.0.1:{port}", TOKEN, patience=0)
        assert client.jobs() == []
        client.close()
        with pytest.raises(Unreachable, match="was closed here"):
            client.jobs()


def test_the_token_is_not_told_before_the_server_has_said_who_it_is():
    told = []

    def stranger(method, path, headers, body):
        told.append(headers)
        return said({"service": "other"})

    with an_http_server(stranger) as port:
        refused(WrongServer, f"http://127.0.0.1:{port}")
    assert told and not any(TOKEN in str(headers) for headers in told)


def test_the_button_tells_how_it_went(a_closed_port):
    failed = test_connection(f"http://127.0.0.1:{a_closed_port}", TOKEN)
    assert not failed.ok and "Nothing answers" in failed.sentence and failed.version is None
    with an_http_server(hello_only) as port:
        found = test_connection(f"http://127.0.0.1:{port}", TOKEN)
    assert found.ok and found.version == "0.1.0" and "knows the token" in found.sentence
    assert not test_connection("http://example.org", TOKEN).ok
