"""The service that segments and learns, as the settings have it: of this computer, or a site's server."""

from contextlib import contextmanager

from RefSegLib.errors import BadInput

from RefSegSlicerLib import settings, tokens
from RefSegSlicerLib.translation import tr as _


def open_service():
    """The service of the settings: a LocalService or a SiteService. Reads settings only, so it may be called anywhere
    in the main thread; `client` of what it returns starts or reaches the service, in threads.

    Raises BadInput for a server's address that is none, and where packages are missing.
    """
    with _installed():
        if settings.atSite():
            from InteractiveLearningLib.service.site import SiteService

            url = checkedUrl(settings.chosen(settings.URL_KEY))
            return SiteService(url, lambda: tokens.token(url), settings.chosen(settings.CERTIFICATE_KEY) or None)
        from InteractiveLearningLib.service.local import LocalService

        return LocalService(settings.store(), settings.python(), settings.environment())


def checkedUrl(text) -> str:
    """The address of a server in the one form under which its token is kept. Raises BadInput if it is none."""
    with _installed():
        from InteractiveLearningLib.service.transport import checked_url

        return str(checked_url(text)).rstrip("/")


@contextmanager
def _installed():
    try:
        yield
    except ModuleNotFoundError as error:
        text = _("RefSeg is not set up yet: the package {name} is missing. See the section First use.")
        raise BadInput(text.format(name=error.name)) from error
