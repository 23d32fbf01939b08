"""Errors that are meant to be read by the person in front of the screen."""


class RefSegError(Exception):
    """Something went wrong and the message says what, where and what to do. Shown as it is, without a traceback."""


class BadInput(RefSegError):
    """The image, mask, file or setting that was given cannot be used."""


class Cancelled(RefSegError):
    """The user asked to stop; nothing was changed."""

    def __init__(self, message: str = "Cancelled.") -> None:
        super().__init__(message)
