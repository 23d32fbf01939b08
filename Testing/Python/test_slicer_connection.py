"""The modules and the service behind them: of this computer, or a site's, with real processes and real keyrings."""

import shutil

import pytest
import slicer
from InteractiveLearningLib.listing import Listing, list_models
from InteractiveLearningLib.service.failures import Denied
from InteractiveLearningLib.service.site import SiteService
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegSlicerLib import connection, settings
from RefSegSlicerLib.catalog import Catalog
from running_service import RunningService

pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")


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
    """A server on that store."""
    service = RunningService(a_home).start()
    yield service
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
    there = open_catalog(SiteService(a_site.url, a_site.token))
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
    catalog = open_catalog(SiteService(a_site.url, lambda: None))
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
    service = SiteService(a_site.url, lambda: token[0])
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
