"""Weights that others wrote with torch.save, read without trusting them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from RefSegLib.errors import BadInput

# What nnU-Net writes beside the weights: numbers of numpy in its log. Nothing else of a pickle is ever built.
_SCALARS = ("float64", "float32", "int64", "bool")


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A dictionary that torch.save wrote, made of tensors, plain values and numbers of numpy only.

    Raises BadInput for anything else, which is never built: unpickling it could run any program.
    """
    scalar = np.float64(0).__reduce__()[0]
    # Under the names of both numpy 1 and 2, whichever wrote the file.
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    known = [*names, np.dtype, *(type(np.dtype(name)) for name in _SCALARS)]
    try:
        with torch.serialization.safe_globals(known):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"'{file}' cannot be read: {error.strerror}.") from error
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"'{file}' holds more than weights and plain values, or is damaged, and is not opened: unpickling it could "
            "run any program. Save the state dict of the network alone, or export the network as TorchScript."
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files
        raise BadInput(f"'{file}' is not a checkpoint of torch, or it is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise BadInput(f"'{file}' should hold a dictionary of weights.")
    return content
