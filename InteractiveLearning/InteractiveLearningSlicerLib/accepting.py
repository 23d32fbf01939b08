"""What of a session the replay store is to keep."""

import numpy as np
from RefSegLib.errors import BadInput

from InteractiveLearningSlicerLib import segments


def acceptedCase(session, model, patient, spec):
    """An AcceptedCase of a session. spec: of the model that learns from it.

    Segments that the model does not know are left out of it. Raises BadInput if none is left.
    """
    from InteractiveLearningLib.accepted import AcceptedCase

    names = {value: name for name, value in segments.namedValues(spec).items()}
    result = session.accepted()
    known = np.isin(result.labels.array, list(names))
    if not known.any():
        raise BadInput(
            f"None of the segments has a mask that '{model}' could learn. It knows: {', '.join(names.values())}."
        )
    foreign = ~known & (result.labels.array != 0)
    array = np.where(foreign, 0, result.labels.array).astype(result.labels.array.dtype)
    return AcceptedCase(
        model,
        session.volume,
        type(result.labels)(array, session.grid),
        patient,
        tuple(names.get(value, f"label {value}") for value in range(1, max(names) + 1)),
        np.where(foreign, 0, result.confidence).astype(np.float32),
        result.annotated,
        result.effort,
    )
