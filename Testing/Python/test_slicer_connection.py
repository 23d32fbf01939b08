"""The modules and the service behind them: of this computer, or a site's, with real processes and real keyrings."""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import shiboken6
import slicer
from slicer_standin.fixtures import an_empty_scene, no_swallowed_exceptions  # noqa: F401

# Slicer's own layer has to be there before what imports it.
# isort: split

import keyring
import numpy as np
from InteractiveLearningLib.listing import Listing, list_models
from InteractiveLearningLib.service.accounts import Accounts, Role
from InteractiveLearningLib.service.failures import Denied
from InteractiveLearningLib.service.local import ServiceRunner
from InteractiveLearningLib.service.site import SiteService
from InteractiveLearningSlicerLib.server_section import ServerSection
from keyring.backends import fail, null
from keyrings.alt.file import PlaintextKeyring
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.store import ModelStore
from RefSegSlicerLib import connection, first_use, settings, tokens
from RefSegSlicerLib.catalog import Catalog
from RefSegSlicerLib.first_use import FirstUse
from running_service import RunningService
from service_sockets import a_certificate

pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


ROOT = Path(__file__).parents[2]
SERVER_UI = ROOT / "InteractiveLearning" / "Resources" / "UI" / "InteractiveLearningServer.ui"


@pytest.fixture(autouse=True)
def no_settings(tmp_path):
    """Nothing is chosen before, nothing after; models are not those of whoever runs this."""
    slicer.app.settings().clear()
    settings.choose(settings.STORE_KEY, tmp_path / "store")
    yield
    slicer.app.settings().clear()


def test_settings_say_which_service_it_is_and_a_changed_one_is_another(tmp_path):
    local = connection.open_service()
    assert local.place == "this computer" and local.home == tmp_path / "store" and local.found() is None
    assert local.about == connection.open_service().about
    settings.choose(settings.PYTHON_KEY, "/opt/engine/bin/python")
    assert connection.open_service().about != local.about
    settings.choose(settings.WHERE_KEY, settings.SITE)
    settings.choose(settings.URL_KEY, " https://Segment.example.org:8443/ ")
    site = connection.open_service()
    assert site.place == "segment.example.org:8443" and site.home is None and site.found() is None
    assert site.about == connection.open_service().about != local.about
    settings.choose(settings.CERTIFICATE_KEY, "/etc/site.pem")
    assert connection.open_service().about != site.about


@pytest.mark.parametrize("url", ["", "segment.example.org", "http://segment.example.org:8443", "https://a:b@c"])
def test_an_address_that_is_none_is_refused_with_a_sentence(url):
    settings.choose(settings.WHERE_KEY, settings.SITE)
    settings.choose(settings.URL_KEY, url)
    with pytest.raises(BadInput, match=r"address|https"):
        connection.open_service()


# The models to choose from


@pytest.fixture(scope="module")
def a_home(tmp_path_factory):
    """A store with two tiny models of random weights, one with a card of its own."""
    from benchmarks.tiny_learning import an_untrained_version

    home = tmp_path_factory.mktemp("home")
    an_untrained_version(home)
    shutil.copytree(home / "models" / "balls", home / "models" / "broken")
    (home / "models" / "balls" / "MODEL_CARD.md").write_text("# Two balls\nOf random weights.")
    return home


@pytest.fixture(scope="module")
def a_site(a_home):
    """A site's server on that store, with a certificate of its own, and the tokens of two people."""
    certificate, key = a_certificate(a_home)
    service = RunningService(a_home, "--tls-cert", str(certificate), "--tls-key", str(key))
    for name, role in (("ann", Role.ANNOTATOR), ("rita", Role.REVIEWER)):
        Accounts(a_home).add(name, role)
    service.tokens = {name: Accounts(a_home).give_token(name) for name in ("ann", "rita")}
    service.certificate = str(certificate)
    yield service.start()
    service.end()


@pytest.fixture
def told():
    """What a catalog has told."""
    return []


@pytest.fixture
def open_catalog(told):
    """Makes catalogs that are closed in the end."""
    made = []

    def make(service):
        made.append(Catalog(service))
        made[-1].changed.connect(lambda: told.append("changed"))
        made[-1].failed.connect(told.append)
        return made[-1]

    yield make
    for catalog in made:
        catalog.close()


def test_models_of_this_computer_are_listed_without_starting_anything(a_home, open_catalog, told):
    settings.choose(settings.STORE_KEY, a_home)
    catalog = open_catalog(connection.open_service())
    assert catalog.models == () and catalog.find("balls") is None
    catalog.refresh()
    assert catalog.refreshing and catalog.models == ()
    catalog.wait()
    assert [model.name for model in catalog.models] == ["balls", "hippocampus"] and told == ["changed"]
    balls = catalog.find("balls")
    assert balls.version == "1" and balls.versions == ("1",) and balls.reflects
    assert balls.named == {label.name: label.value for label in balls.labels} == {"bright": 1, "dim": 2}
    assert balls.card.startswith("# Two balls\nOf random weights.\n\n## Version 1\n")
    hippocampus = catalog.find("hippocampus")
    assert hippocampus.reflects and hippocampus.named["Right anterior hippocampus"] == 3
    assert hippocampus.labels[0].type.meaning == "Hippocampus"
    assert "CC BY-SA 4.0" in hippocampus.card and "Mean Dice on test patients 0.876" in hippocampus.card
    assert not (a_home / "service" / "local.json").exists()


def test_a_broken_model_is_named_and_hides_no_other(a_home, open_catalog):
    catalog = open_catalog(connection.open_service())
    catalog.service = type("Service", (), {"home": a_home})
    catalog.refresh()
    catalog.wait()
    (sentence,) = catalog.broken
    assert sentence.startswith("The model 'broken' cannot be used. model.json belongs to 'balls'")
    assert "Roll back" in sentence and len(catalog.models) == 2


def test_a_site_lists_the_same_models(a_home, a_site, open_catalog, told):
    here = open_catalog(connection.open_service())
    here.service = type("Service", (), {"home": a_home})
    there = open_catalog(SiteService(a_site.url, a_site.token, a_site.certificate))
    for catalog in (here, there):
        catalog.refresh()
        catalog.wait()
    assert there.models == here.models and there.broken == here.broken and there.find("hippocampus").card
    there.refresh()
    there.wait()
    assert told == ["changed", "changed"]  # nothing is told where nothing has changed


def test_a_new_version_is_told_and_what_was_known_stays_if_it_cannot_be_read(tmp_path, open_catalog, told):
    from benchmarks.tiny_learning import an_untrained_version

    an_untrained_version(tmp_path / "store")
    catalog = open_catalog(connection.open_service())
    catalog.refresh()
    an_untrained_version(tmp_path / "store", seed=1)
    catalog.refresh()  # the reading that goes on may have been there before
    catalog.wait()
    assert catalog.find("balls").version == "2" and catalog.find("balls").versions == ("1", "2")
    told.clear()
    catalog.service = SiteService("http://127.0.0.1:9", "token")
    catalog.refresh()
    catalog.wait()
    assert "127.0.0.1:9" in str(told[0]) and catalog.find("balls").version == "2"


def test_a_site_where_nobody_is_signed_in_says_so(a_site, open_catalog, told):
    catalog = open_catalog(SiteService(a_site.url, lambda: None, a_site.certificate))
    catalog.refresh()
    catalog.wait()
    assert isinstance(told[0], Denied) and "Sign in with a token" in str(told[0])


def test_a_closed_catalog_tells_nothing_more(a_home, told):
    catalog = Catalog(type("Service", (), {"home": a_home}))
    catalog.changed.connect(lambda: told.append("changed"))
    catalog.refresh()
    catalog.close()
    catalog.poll()
    assert told == [] and not catalog.refreshing


def test_who_signs_in_anew_gets_a_new_client(a_site):
    token = [a_site.token]
    service = SiteService(a_site.url, lambda: token[0], a_site.certificate)
    first = service.client()
    assert service.client() is first is service.found() and first.models()
    token[0] = "other"
    with pytest.raises(Denied, match="not known"):
        service.client().models()
    service.leave()
    assert service.found() is None


def test_the_list_of_an_earlier_server_is_understood(a_home):
    told = list_models(ModelStore(a_home)).to_dict()
    del told["broken"]
    for model in told["models"]:
        del model["named"], model["card"], model["reflects"]
    model = Listing.from_dict(told).models[1]
    assert model.card == "" and not model.reflects and model.versions == ("1",)
    assert model.named == {"anterior hippocampus": 1, "posterior hippocampus": 2}


def test_a_site_segments_what_this_computer_segments(a_home, a_site, tmp_path):
    from benchmarks.tiny_learning import an_image

    image, _ = an_image(1)
    shutil.copytree(a_home / "models", tmp_path / "store" / "models")
    found = []
    for service in (SiteService(a_site.url, a_site.token, a_site.certificate), connection.open_service()):
        runner = ServiceRunner(service)
        job = runner.segment(image, "balls", reflect=False)
        job.finished.connect(found.append)
        job.failed.connect(found.append)
        job.wait()
        runner.close()
    assert found[0].labels.array.any() and np.array_equal(found[0].labels.array, found[1].labels.array)
    job = ServiceRunner(SiteService(a_site.url, lambda: None, a_site.certificate)).segment(image, "balls")
    job.failed.connect(found.append)
    job.wait()
    assert "Sign in with a token" in str(found[2])


# Tokens


class SystemsKeyring(PlaintextKeyring):
    """A keyring that counts as the operating system's."""

    priority = 5


@pytest.fixture(autouse=True)
def a_keyring(tmp_path):
    """A real keyring: a file of the test's own. Nothing is held in memory from before."""
    before = keyring.get_keyring()
    backend = SystemsKeyring()
    backend.file_path = str(tmp_path / "keyring.cfg")
    keyring.set_keyring(backend)
    tokens._held.clear()
    yield backend
    tokens._held.clear()
    keyring.set_keyring(before)


URL = "https://segment.example.org:8443"


def test_a_token_is_in_the_keyring_and_nowhere_else(a_keyring, tmp_path):
    assert tokens.token(URL) is None
    assert tokens.keep(URL, "a-secret-token")
    tokens._held.clear()  # as after a restart
    assert tokens.token(URL) == "a-secret-token" and tokens.token(URL + "4") is None
    assert keyring.get_password("RefSeg", URL) == "a-secret-token"
    slicer.app.settings().sync()
    assert "a-secret-token" not in Path(slicer.app.settings().fileName()).read_text()
    tokens.forget(URL)
    tokens._held.clear()
    assert tokens.token(URL) is None and keyring.get_password("RefSeg", URL) is None
    tokens.forget(URL)  # what is not there is forgotten, too


class Broken(fail.Keyring):
    """A backend that fails as those of others do."""

    def get_password(self, service, username):
        raise RuntimeError(f"the bus is gone while {username} asked")

    priority = 5
    set_password = delete_password = get_password


@pytest.mark.parametrize("backend", [fail.Keyring, null.Keyring, Broken, PlaintextKeyring])
def test_without_a_keyring_a_token_is_held_for_this_run(backend, tmp_path):
    keyring.set_keyring(backend())
    keyring.get_keyring().file_path = str(tmp_path / "readable.cfg")
    assert tokens.token(URL) is None
    assert not tokens.keep(URL, "a-secret-token")
    assert tokens.token(URL) == "a-secret-token" and not (tmp_path / "readable.cfg").exists()
    tokens.forget(URL)
    assert tokens.token(URL) is None


def test_without_the_package_a_token_is_held_for_this_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert not tokens.keep(URL, "a-secret-token") and tokens.token(URL) == "a-secret-token"


def test_what_is_missing_before_setting_up_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "InteractiveLearningLib.service.local", None)
    with pytest.raises(BadInput, match="First use"):
        connection.open_service()


# The panel's section of the server


class Panel:
    """A section in a panel of its own."""

    def __init__(self, file, make):
        self.parent = slicer.util.loadUI(str(file))
        self.ui = slicer.util.childWidgetVariables(self.parent)
        self.said, self.changes, self.held = [], [], ""
        self.section = make(self)
        self.section.changed.connect(lambda: self.changes.append(settings.snapshot()))
        self.parent.show()

    def guarded(self, work):
        try:
            return work()
        except RefSegError as error:
            self.said.append(str(error))

    def press(self, button):
        """Press a button that a person could press."""
        assert button.visible and button.enabled, button.toolTip
        button.click()

    def until(self, true, seconds=60):
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:
            slicer.app.processEvents()
            self.section.poll()
            time.sleep(0.01)
        assert true(), self.shown()

    def shown(self):
        """All that the panel says."""
        return [label.text for label in vars(self.ui).values() if hasattr(label, "wordWrap")] + self.said

    def picture(self, name):
        """What it looks like now, as a file for people."""
        folder = Path(os.environ.get("REFSEG_SCREENSHOTS", ROOT / "out" / "screenshots"))
        folder.mkdir(parents=True, exist_ok=True)
        slicer.app.processEvents()
        self.parent.resize(420, self.parent.layout().totalHeightForWidth(420))
        slicer.app.processEvents()
        assert self.parent.grab().save(str(folder / f"{name}.png"))


@pytest.fixture
def open_panel():
    """Opens panels; they are closed in the end."""
    opened = []

    def make(*arguments):
        opened.append(Panel(*arguments))
        return opened[-1]

    yield make
    for panel in opened:
        panel.section.close()
        shiboken6.delete(panel.parent)


@pytest.fixture
def a_server_section(open_panel):
    panel = open_panel(SERVER_UI, lambda p: ServerSection(p.ui, lambda: p.held, p.guarded))
    panel.ui.server.collapsed = False
    panel.section.enter()
    return panel


def filled(panel, site, token):
    """What a person types."""
    panel.ui.urlEdit.text = site.url + "/"
    panel.ui.certificateEdit.currentPath = site.certificate
    panel.ui.tokenEdit.text = token


def test_signing_in_keeps_the_token_and_takes_effect_at_once(a_server_section, a_site, caplog):
    panel, ui = a_server_section, a_server_section.ui
    caplog.set_level(logging.DEBUG)
    assert ui.localButton.checked and not ui.urlEdit.visible and "This computer" in ui.localButton.toolTip
    panel.picture("server-1-local")
    panel.press(ui.siteButton)
    assert ui.urlEdit.visible and not ui.signInButton.enabled and not settings.atSite()
    assert ui.signInButton.toolTip == "Enter the address of the server."
    assert not ui.signOutButton.enabled and ui.signOutButton.toolTip == "Nobody is signed in."
    panel.picture("server-2-empty")
    filled(panel, a_site, a_site.tokens["rita"])
    panel.press(ui.signInButton)
    assert ui.tokenEdit.text == "" and not ui.signInButton.enabled and not ui.urlEdit.enabled
    panel.picture("server-3-asking")
    panel.until(lambda: panel.changes)
    assert settings.atSite() and settings.chosen(settings.URL_KEY) == a_site.url
    assert ui.linkLabel.text == f"Connected to {a_site.url}, signed in as rita (reviewer)."
    assert "it is rita's, reviewer" in ui.serverLabel.text and "keyring" not in ui.serverLabel.text
    assert keyring.get_password("RefSeg", a_site.url) == a_site.tokens["rita"]
    assert connection.open_service().client().me()["name"] == "rita"
    panel.picture("server-4-signed-in")
    secret = a_site.tokens["rita"].partition(".")[2]
    assert secret not in caplog.text + " ".join(panel.shown()) + str(settings.snapshot())
    panel.section.poll()
    assert len(panel.changes) == 1  # its own change is not told twice


def test_a_panel_that_opens_later_shows_who_is_signed_in(a_server_section, a_site):
    panel = a_server_section
    tokens.keep(a_site.url, a_site.tokens["ann"])
    for key, value in (
        (settings.URL_KEY, a_site.url),
        (settings.CERTIFICATE_KEY, a_site.certificate),
        (settings.WHERE_KEY, settings.SITE),
    ):
        settings.choose(key, value)  # as the page of the settings does
    panel.until(lambda: "signed in as ann (annotator)" in panel.ui.linkLabel.text)
    assert panel.changes and panel.ui.siteButton.checked and panel.ui.urlEdit.text == a_site.url


def test_testing_a_connection_changes_nothing(a_server_section, a_site):
    panel, ui = a_server_section, a_server_section.ui
    panel.press(ui.siteButton)
    filled(panel, a_site, a_site.tokens["ann"])
    panel.press(ui.testButton)
    panel.until(lambda: "it is ann's, annotator" in ui.serverLabel.text)
    assert not settings.atSite() and not panel.changes and tokens.token(a_site.url) is None
    ui.certificateEdit.currentPath = ""
    panel.press(ui.testButton)
    panel.until(lambda: "signed by itself" in ui.serverLabel.text)
    ui.urlEdit.text = "segment.example.org"
    panel.press(ui.testButton)
    assert "no address of a server" in ui.serverLabel.text
    panel.picture("server-5-not-trusted")


def test_a_token_that_opens_nothing_is_not_kept(a_server_section, a_site):
    panel, ui = a_server_section, a_server_section.ui
    panel.press(ui.siteButton)
    filled(panel, a_site, "0123456789ab.wrong")
    panel.press(ui.signInButton)
    panel.until(lambda: "not known here" in ui.serverLabel.text)
    assert not settings.atSite() and tokens.token(a_site.url) is None and not panel.changes


def test_signing_out_forgets_the_token_and_the_state_says_so(a_server_section, a_site):
    panel, ui = a_server_section, a_server_section.ui
    panel.press(ui.siteButton)
    filled(panel, a_site, a_site.tokens["ann"])
    panel.press(ui.signInButton)
    panel.until(lambda: panel.changes)
    panel.press(ui.signOutButton)
    panel.until(lambda: len(panel.changes) == 2)
    assert keyring.get_password("RefSeg", a_site.url) is None
    panel.until(lambda: "Nobody is signed in there" in ui.linkLabel.text)
    panel.picture("server-6-signed-out")
    with pytest.raises(Denied, match="Nobody is signed in"):
        connection.open_service().client()


def test_without_a_keyring_the_panel_says_that_it_has_to_be_done_again(a_server_section, a_site):
    panel, ui = a_server_section, a_server_section.ui
    keyring.set_keyring(fail.Keyring())
    panel.press(ui.siteButton)
    filled(panel, a_site, a_site.tokens["ann"])
    panel.press(ui.signInButton)
    panel.until(lambda: panel.changes)
    assert "no keyring that can be used" in ui.serverLabel.text
    panel.picture("server-7-no-keyring")


def test_an_open_session_holds_the_engine_but_not_a_new_token(a_server_section, a_site):
    panel, ui = a_server_section, a_server_section.ui
    panel.press(ui.siteButton)
    filled(panel, a_site, a_site.tokens["ann"])
    panel.press(ui.signInButton)
    panel.until(lambda: panel.changes)
    panel.held = "A session is open. Accept or end it first."
    panel.section.update()
    for button in (ui.localButton, ui.siteButton, ui.signOutButton):
        assert not button.enabled and button.toolTip == panel.held
    panel.picture("server-8-held")
    ui.tokenEdit.text = a_site.tokens["rita"]  # the old one has expired, say
    panel.press(ui.signInButton)
    panel.until(lambda: len(panel.changes) == 2)
    assert connection.open_service().client().me()["name"] == "rita"
    ui.urlEdit.text = "https://another.example.org"
    assert not ui.signInButton.enabled and ui.signInButton.toolTip == panel.held
    panel.held = ""
    panel.section.update()
    panel.press(ui.localButton)
    assert not settings.atSite() and len(panel.changes) == 3
    panel.press(ui.siteButton)
    assert settings.atSite() and ui.urlEdit.text == a_site.url


def test_a_server_that_is_gone_is_told_in_the_state(a_server_section):
    settings.choose(settings.URL_KEY, "http://127.0.0.1:9")
    settings.choose(settings.WHERE_KEY, settings.SITE)
    tokens.keep("http://127.0.0.1:9", "token")
    a_server_section.until(lambda: "Nothing answers" in a_server_section.ui.linkLabel.text)
    a_server_section.picture("server-9-gone")


# First use with a site


def test_first_use_can_be_signing_in_at_a_site(open_panel, a_site, tmp_path, monkeypatch):
    client, engine = tmp_path / "client.txt", tmp_path / "engine.txt"
    client.write_text("numpy>=1.0\n")
    engine.write_text("no-such-package-at-all>=3\n")
    monkeypatch.setattr(first_use.packages, "ENGINE_FILE", engine)
    panel = open_panel(first_use.UI_FILE, lambda p: FirstUse(p.ui, client, p.guarded, p.said.append, lambda _: False))
    ui = panel.ui
    panel.press(ui.siteButton)
    filled(panel, a_site, "0123456789ab.wrong")
    panel.press(ui.setUpButton)
    panel.until(lambda: "not known here" in ui.setUpLabel.text)
    assert not settings.atSite() and panel.section.needed()
    panel.picture("first-use-8-site-refused")
    ui.tokenEdit.text = a_site.tokens["ann"]
    panel.press(ui.setUpButton)
    panel.until(lambda: panel.changes)
    assert settings.atSite() and not panel.section.needed() and not ui.firstUse.visible and ui.tokenEdit.text == ""
    assert "it is ann's" in panel.said[-1] and connection.open_service().client().me()["role"] == "annotator"
