"""What of a session the replay store is to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from RefSegLib.errors import BadInput
from RefSegLib.volume.volume import LabelMap

from InteractiveLearningLib.accepted import AcceptedCase

if TYPE_CHECKING:
    from RefSegLib.models.spec import SegmenterSpec

    from InteractiveLearningLib.session import Session


def named_values(spec: SegmenterSpec) -> dict[str, int]:
    """Label values of a model by the names its segments carry, left and right among them."""
    values = {label.name: label.value for label in spec.labels}
    for box in spec.region.boxes:
        side = f"{box.side.capitalize()} " if box.side else ""
        values |= {f"{side}{label.name}": label.value + box.offset for label in spec.labels}
    return values


def accepted_case(
    session: Session, model: str, patient: str, spec: SegmenterSpec, *, site: str = "", consent: bool = True
) -> AcceptedCase:
    """The case of a session. spec: of the model that learns from it.

    Structures that the model does not know are left out of it. Raises BadInput if none is left.
    """
    names = {value: name for name, value in named_values(spec).items()}
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
        LabelMap(array, session.grid),
        patient,
        tuple(names.get(value, f"label {value}") for value in range(1, max(names) + 1)),
        np.where(foreign, 0, result.confidence).astype(np.float32),
        result.annotated,
        result.effort,
        consent=consent,
        site=site,
    )
