"""The modules and the service behind them: of this computer, or a site's, with real processes and real keyrings."""

import pytest
import slicer
from RefSegLib.errors import BadInput
from RefSegSlicerLib import connection, settings

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
    with pytest.raises(BadInput, match="address|https"):
        connection.open_service()
