"""Signing in at a site's server and out again, in the background. The token goes to the keyring, and nowhere else."""

from dataclasses import dataclass

from RefSegLib.errors import RefSegError
from RefSegLib.jobs import Job

from RefSegSlicerLib import tokens
from RefSegSlicerLib.translation import tr as _


@dataclass(frozen=True)
class SignedIn:
    """What a server said. sentence: for people; name and role: whose the token is; kept: it is in the keyring."""

    sentence: str
    name: str
    role: str
    kept: bool


def signIn(url, token, certificate, keep=True) -> Job:
    """Try a token at a server, and keep it if it opens something there: finished(SignedIn), or failed with why not.

    url: as connection.checkedUrl gives it; token: empty to try the one that is kept; certificate: a file, or None;
    keep: False to try it only.
    """

    def work(report, cancelled):
        report(0.0, _("Asking the server."))
        used = token or tokens.token(url)
        if not used:
            raise RefSegError(_("Nobody is signed in there. Enter the token that an administrator gave you."))
        found = _tried(url, used, certificate, cancelled)
        kept = tokens.keep(url, used) if token and keep else True
        sentence = found.sentence if kept else f"{found.sentence} {notKept()}"
        return SignedIn(sentence, found.name, found.role, kept)

    return Job(work)


def signOut(url) -> Job:
    """Forget the token for a server: finished(None)."""
    return Job(lambda report, cancelled: tokens.forget(url))


def notKept():
    """What to tell where there is no keyring."""
    return _(
        "This computer has no keyring that can be used, so the token is kept until Slicer ends. Sign in again next "
        "time."
    )


def _tried(url, token, certificate, cancelled):
    from InteractiveLearningLib.service.client import test_connection
    from InteractiveLearningLib.service.remote import aside

    found = aside(lambda: test_connection(url, token, certificate), cancelled)
    if not found.ok:
        raise RefSegError(found.sentence)
    return found
