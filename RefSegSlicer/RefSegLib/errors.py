"""Errors that are meant to be read by the person in front of the screen."""


class RefSegError(Exception):
    """Something went wrong and the message says what, where and what to do. Shown as it is, without a traceback."""


class BadInput(RefSegError):
    """The image, mask, file or setting that was given cannot be used."""


class Cancelled(RefSegError):
    """The user asked to stop; nothing was changed."""

    def __init__(self, message: str = "Cancelled.") -> None:
        super().__init__(message)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, whoever says so: Python, numpy, torch or OpenVINO, each in its own words."""
    said = str(error).lower()
    words = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
    words += ("could not create a primitive", "could not create a memory")  # oneDNN, under torch on a CPU
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in said for word in words))
