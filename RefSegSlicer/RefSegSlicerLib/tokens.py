"""Tokens of servers, in the operating system's keyring: never in settings, in scenes or in a log.

Where there is no keyring a token is held in memory until Slicer ends. Every function may wait for the keyring, which
may ask the user to unlock it: call them in threads. `url` is an address as `checkedUrl` gives it.
"""

import threading

SERVICE = "RefSeg"
_held = {}
_lock = threading.Lock()


def token(url) -> str | None:
    """The token for a server; None if nobody is signed in there."""
    with _lock:
        if url not in _held:
            _held[url] = _from(lambda keyring: keyring.get_password(SERVICE, url))
        return _held[url]


def keep(url, value) -> bool:
    """Keep a token; False if there is no keyring, and it is held for this run only."""
    with _lock:
        _held[url] = value
        _from(lambda keyring: keyring.set_password(SERVICE, url, value))
        # Read back: the backend of whoever switched keyrings off takes everything and keeps nothing.
        return _from(lambda keyring: keyring.get_password(SERVICE, url)) == value


def forget(url):
    """Keep no token for a server any more."""
    with _lock:
        _held[url] = None
        _from(lambda keyring: keyring.delete_password(SERVICE, url))


def _from(use):
    """What the keyring answers; None if there is none, or it does not work."""
    try:
        import keyring

        # Backends below that are files that anybody can read, or none at all.
        return use(keyring) if keyring.core.recommended(keyring.get_keyring()) else None
    except Exception:  # backends are programs of others, and raise what they like; what they say may name the secret
        return None
