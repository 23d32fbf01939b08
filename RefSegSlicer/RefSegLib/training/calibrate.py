"""Reflection taught anew for a stored model: after an update of RefSeg, or with patients of one's own site."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence

from RefSegLib.errors import BadInput
from RefSegLib.inference.segmenter import load_segmenter
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.calibration import calibrate
from RefSegLib.synthesis.synthesizer import load_synthesizer
from RefSegLib.training.cases import Case, by_role, fingerprint
from RefSegLib.training.train import read_samples, workplace


def recalibrate(
    version: ModelVersion, cases: Sequence[Case], store: ModelStore, *, seed: int = 0, progress: Progress = SILENT
) -> ModelVersion:
    """A version with the same networks, and reflection calibrated on those of `cases` whose hash says validation.

    It becomes active if the given one was. Raises BadInput for a model without a synthesizer or data that does not fit
    the model, Cancelled if the user asked to stop.
    """
    synthesizer = load_synthesizer(version)
    if synthesizer is None:
        raise BadInput(
            f"Model '{version.name}' has no synthesizer, so there is nothing to calibrate. "
            f"Train one: refseg train-synthesizer --model {version.name}."
        )
    chosen = by_role(cases)["validation"]
    cache = workplace(store, json.dumps(["calibrate", version.spec.model_dump(mode="json"), fingerprint(chosen)]))
    samples = read_samples({"train": [], "validation": chosen}, version.spec, cache, progress.part(0.0, 0.1))
    reflection = calibrate(
        samples["validation"], load_segmenter(version), synthesizer, seed=seed, progress=progress.part(0.1, 1.0)
    )
    was_active = store.active(version.name) == version.version
    added = store.add(
        version.spec,
        version.segmenter_bytes(),
        version.synthesizer(),
        parent=f"{version.name}@{version.version}",
        data=version.manifest.data | {"calibration": {"fingerprint": fingerprint(chosen), "cases": len(chosen)}},
        settings=version.manifest.settings,
        scores=version.manifest.scores,
        reflection=reflection.model_dump(mode="json"),
    )
    if was_active:
        store.activate(added.name, added.version)
    shutil.rmtree(cache, ignore_errors=True)
    return added
