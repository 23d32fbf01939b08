"""Nothing of the browser workspace is readable without the token, and nobody sees the work of others.

A real launcher, its real child processes, a real browser.
"""

import asyncio
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import httpx
import numpy as np
import psutil
import pytest
from browser import READY_MS, picture, wait_for_views
from BrowserWorkspaceLib.access import Visitor
from BrowserWorkspaceLib.launcher import Launcher
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.failures import Denied
from InteractiveLearningLib.service.local import LocalService
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import write_image
from RefSegLib.volume.volume import Volume
from running_app import RunningApp

pytest_plugins = ("browser",)
pytest.importorskip("trame_slicer", reason="the workspace is not installed: pip install 'refseg[app]'")

PATHS = (
    *("/", "/index.html", "/loading.tpl", "/vue.global.js", "/logo.png", "/favicon.ico", "/ws", "/paraview", "/api"),
    *("/nothing/here", "/../etc/passwd", "/%2e%2e/etc/passwd", "//elsewhere.example/", "/@elsewhere.example/"),
    *("/-/workspace", "/-/watch.js", "/-/sign-out", "/?token=", "/index.html?token=wrong", "/assets/"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def an_image(path, seed):
    shape = (24, 28, 32)
    array = np.random.default_rng(seed).integers(0, 500, (1, *shape)).astype(np.int16)
    write_image(Volume(array, Grid(shape, (2.0, 1.5, 1.0))), path)
    return path


@pytest.fixture(scope="module")
def an_app(tmp_path_factory):
    """A workspace for whoever started it, at work."""
    folder = tmp_path_factory.mktemp("app")
    app = RunningApp(folder / "store", "--volume", str(an_image(folder / "mine.nii.gz", 1)))
    with app.signed_in() as client:
        app.until_ready(client)
    yield app
    app.end()


def static_files(client):
    """Addresses of what the page itself needs."""
    page = client.get("/index.html").text
    found = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(found) >= 4
    return [httpx.URL(client.base_url).join(path).path for path in found if not path.startswith("http")]


def test_a_stranger_is_refused_everywhere(an_app):
    with an_app.signed_in() as known:
        addresses = (*PATHS, *static_files(known))
    with an_app.stranger() as stranger:
        for path in addresses:
            for method in METHODS:
                for origin in ({}, {"Origin": an_app.url}):
                    answer = stranger.request(method, path, headers=origin, content=b"x" if method == "POST" else None)
                    assert answer.status_code in (401, 403), (method, path, answer.status_code)
                    assert "trame" not in answer.text and not answer.cookies
        upload = stranger.post("/upload", files={"file": b"voxels"}, headers={"Origin": an_app.url})
        assert upload.status_code == 401


def test_the_process_behind_it_answers_nobody_but_its_launcher(an_app):
    with an_app.signed_in() as known:
        addresses, cookies = (*PATHS, *static_files(known)), dict(known.cookies)
    port = an_app.child()["port"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", cookies=cookies, trust_env=False) as client:
        for path in addresses:
            for header in ({}, {"X-RefSeg-Launcher": "guessed"}, {"X-RefSeg-Launcher": an_app.token}):
                for method in METHODS:
                    assert client.request(method, path, headers=header).status_code == 403, (method, path)
    (connection,) = [
        found
        for found in psutil.Process(an_app.child()["pid"]).net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    ]
    assert connection.laddr.ip == "127.0.0.1"
    assert status_of_websocket(f"ws://127.0.0.1:{port}/ws", {}) == 403


def status_of_websocket(address, headers, cookies=None):
    """101 if a websocket was opened, else what was answered instead."""

    async def status():
        async with aiohttp.ClientSession(cookies=cookies) as session:
            try:
                async with session.ws_connect(address, headers=headers):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    with ThreadPoolExecutor() as thread:  # in this one, Playwright's loop may run
        return thread.submit(asyncio.run, status()).result()


def test_the_websocket_is_for_pages_of_this_address_whose_user_has_signed_in(an_app):
    with an_app.signed_in() as known:
        cookies = dict(known.cookies)
    address, own = an_app.url.replace("http", "ws") + "/ws", {"Origin": an_app.url}
    (name,) = cookies
    for headers, shown, expected in (
        (own, cookies, 101),
        (own, {}, 401),
        (own, {name: "guessed"}, 401),
        ({}, cookies, 403),
        ({"Origin": "http://elsewhere.example"}, cookies, 403),
        ({"Origin": an_app.url.rsplit(":", 1)[0] + ":1"}, cookies, 403),
        ({"Origin": "null"}, cookies, 403),
    ):
        assert status_of_websocket(address, headers, shown) == expected, (headers, shown)


def test_other_sites_cannot_make_a_browser_send_anything(an_app):
    with an_app.signed_in() as client:
        for headers in ({}, {"Origin": "http://elsewhere.example"}):
            assert client.post("/-/sign-out", headers=headers).status_code == 403
        answer = client.get("/index.html")
        assert answer.status_code == 200  # still signed in
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert client.post("/-/sign-out", headers={"Origin": an_app.url}).status_code == 303
        assert client.get("/index.html").status_code == 401


def test_signing_out_ends_the_cookie_itself(an_app):
    with an_app.signed_in() as client:
        kept = dict(client.cookies)
        client.post("/-/sign-out", headers={"Origin": an_app.url})
    with httpx.Client(base_url=an_app.url, cookies=kept, trust_env=False) as thief:
        assert thief.get("/index.html").status_code == 401


def test_wrong_tokens_open_nothing_and_are_soon_not_looked_at(an_app):
    with an_app.stranger() as stranger:
        for token in ("", "wrong", an_app.token[:-1], an_app.token + "x", "é" * 50, "\x00"):
            answer = stranger.get("/", params={"token": token})
            assert answer.status_code == 403 and not answer.cookies
        for _ in range(10):
            answer = stranger.post("/-/sign-in", data={"token": "wrong"}, headers={"Origin": an_app.url})
        assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0
        assert stranger.post("/-/sign-in", data={"token": an_app.token}).status_code == 403  # of another site
        right = stranger.post("/-/sign-in", data={"token": an_app.token}, headers={"Origin": an_app.url})
        assert right.status_code == 303  # who started it is never kept out by guesses of others
        (cookie,) = [line for line in right.headers.get_list("Set-Cookie") if line.startswith("refseg-")]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


def test_a_cookie_of_another_run_opens_nothing(an_app, tmp_path):
    with an_app.signed_in() as known:
        (value,) = known.cookies.values()
    other = RunningApp(tmp_path / "store")
    try:
        with other.signed_in() as own:
            (name,) = own.cookies
            own.cookies.clear()
        with httpx.Client(base_url=other.url, cookies={name: value}, trust_env=False) as thief:
            assert thief.get("/index.html").status_code == 401
        with other.stranger() as stranger:
            assert stranger.get("/", params={"token": an_app.token}).status_code == 403
    finally:
        other.end()


def test_the_token_is_neither_in_the_address_nor_in_what_is_written(an_app, a_page):
    page = a_page(f"{an_app.url}/?token={an_app.token}")
    wait_for_views(page)
    assert "token" not in page.url
    assert page.evaluate("document.cookie") == ""
    assert an_app.token not in page.content()
    assert page.evaluate("history.length") <= 3
    printed = an_app.said()
    assert printed.count(an_app.token) == 1  # the address for whoever started it
    for file in an_app.home.rglob("*"):
        if file.is_file() and file.name != "launcher.log":
            assert an_app.token.encode() not in file.read_bytes(), file
    for process in (psutil.Process(an_app.process.pid), psutil.Process(an_app.child()["pid"])):
        assert an_app.token not in " ".join(process.cmdline())
        assert an_app.token not in str(process.environ())


def test_what_is_no_http_is_neither_answered_nor_written_down(an_app):
    before = an_app.said()
    address = httpx.URL(an_app.url)
    for line in ("GET /?token=secret", "GET @elsewhere.example/ HTTP/1.1", "PRI * HTTP/2.0", "\x16\x03\x01secret"):
        with socket.create_connection((address.host, address.port), timeout=30) as connection:
            connection.sendall(f"{line}\r\nHost: secret\r\n\r\n".encode("latin-1"))
            connection.shutdown(socket.SHUT_WR)
            assert b" 200 " not in connection.recv(100)
    assert an_app.said() == before


def test_only_its_user_can_look_into_the_folder_of_a_workspace(an_app):
    folder = an_app.home / "app" / "console"
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "child.json").stat().st_mode & 0o077 == 0


def test_a_child_that_was_killed_comes_back_and_so_does_the_page(an_app, a_page):
    page = a_page(f"{an_app.url}/?token={an_app.token}", may_fail=True)
    wait_for_views(page)
    page.wait_for_timeout(3000)  # it has looked who is at work
    before = an_app.child()["pid"]
    os.kill(before, signal.SIGKILL)
    until = time.monotonic() + READY_MS / 1000
    while psutil.pid_exists(before) or (found := child_or_none(an_app)) is None or found["pid"] == before:
        assert time.monotonic() < until
        page.wait_for_timeout(200)  # the browser goes on meanwhile
    page.wait_for_url("**/index.html")
    wait_for_views(page)


def child_or_none(app):
    try:
        return app.child()
    except (OSError, ValueError):
        return None


def test_the_service_is_asked_in_the_name_of_the_user(tmp_path):
    """What a role forbids, the page cannot do either."""
    accounts = Accounts(tmp_path)
    accounts.add("ada", Role.ANNOTATOR)
    service = LocalService(tmp_path, token=accounts.give_token("ada"))
    try:
        client = service.client()
        with pytest.raises(Denied, match="annotator"):
            client.ask("GET", "/audit")
    finally:
        service.leave()
    owner = LocalService(tmp_path)
    try:
        owner.client().ask("GET", "/audit")
    finally:
        owner.leave()


def test_users_open_no_folders_of_the_machine_that_nobody_has_opened_for_them(tmp_path):
    accounts = Accounts(tmp_path / "store")
    accounts.add("ada", Role.ANNOTATOR)
    open_to_all = tmp_path / "open to all"
    open_to_all.mkdir()
    for given, token, expected in (
        (None, None, None),
        (None, "a token", tmp_path / "store" / "app" / "ada"),
        (open_to_all, "a token", open_to_all),
        (open_to_all, None, open_to_all),
    ):
        launcher = Launcher(tmp_path / "store", images=given)
        assert launcher.images_for(Visitor("ada", token)) == expected


def test_two_users_do_not_see_each_other(tmp_path, a_page):
    home = tmp_path / "store"
    accounts = Accounts(home)
    tokens = {}
    for name in ("ada", "bob"):
        accounts.add(name, Role.ANNOTATOR)
        tokens[name] = accounts.give_token(name)
    files = {name: an_image(tmp_path / f"{name}-file.nii.gz", number) for number, name in enumerate(tokens)}
    app = RunningApp(home)
    try:
        assert app.token is None
        pages = {}
        for name, token in tokens.items():
            pages[name] = page = a_page(app.url, may_fail=True)
            page.get_by_label("Token").fill(token)
            picture(page, "workspace-sign-in")
            page.get_by_role("button", name="Sign in").click()
            wait_for_views(page)
            page.locator("input[type=file]").first.set_input_files(str(files[name]))
            page.get_by_text(f"{name}-file").first.wait_for(timeout=READY_MS)
        for name, other in (("ada", "bob"), ("bob", "ada")):
            shown = pages[name].content()
            assert f"{name}-file" in shown and f"{other}-file" not in shown
        picture(pages["ada"], "workspace-two-users")
        assert app.child("ada")["pid"] != app.child("bob")["pid"]

        accounts.revoke("bob")  # at once, also for a page that is open
        pages["bob"].get_by_label("Token").wait_for(timeout=READY_MS)
        assert "bob-file" not in pages["bob"].content()
        pages["ada"].reload()
        pages["ada"].get_by_text("ada-file").first.wait_for(timeout=READY_MS)
        pages["ada"].get_by_role("button", name="Sign out").click()
        pages["ada"].get_by_label("Token").wait_for(timeout=READY_MS)
        pages["ada"].go_back()
        pages["ada"].get_by_label("Token").wait_for(timeout=READY_MS)  # nothing is left in the browser either
    finally:
        app.end()
