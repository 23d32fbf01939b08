"""A synthesizer, and with it reflection, for a segmenter that has none: a new version of the same model."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence

import torch

from RefSegLib.errors import BadInput
from RefSegLib.inference.segmenter import TorchSegmenter, ready_segmenter
from RefSegLib.models.foreign import FOREIGN
from RefSegLib.models.networks import build_synthesizer, restored_segmenter
from RefSegLib.models.spec import Network, SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.progress import SILENT, Progress
from RefSegLib.reflection.calibration import calibrate
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.synthesis.training import train_synthesizer
from RefSegLib.training.batches import batch_of
from RefSegLib.training.cases import Case, by_role
from RefSegLib.training.fit import best_device, has_bfloat16
from RefSegLib.training.train import arrays, described, measure, read_samples, started, workplace

log = logging.getLogger(__name__)

# For segmenters whose network is not one of ours. Three levels: what is near a structure decides how it looks. Batch
# norm: any part of an image is drawn alike, so only the box that is judged has to be drawn; on hearts as good as
# instance norm (SSIM .421 and .426 on validation) at a fifth of the time.
USUAL = Network(name="unet", arguments={"filters": [16, 32, 64], "norm": "batch"})


def with_synthesizer(spec: SegmenterSpec) -> SegmenterSpec:
    """`spec` with a synthesizer named in it, where its own network cannot tell what it should be."""
    if spec.synthesizer is not None or spec.network.name not in FOREIGN:
        return spec
    return spec.model_copy(update={"synthesizer": USUAL})


def add_synthesizer(
    version: ModelVersion,
    cases: Sequence[Case],
    store: ModelStore,
    *,
    epochs: int,
    seed: int,
    progress: Progress = SILENT,
) -> ModelVersion:
    """Train a synthesizer for a stored version on the patients whose hash says so, calibrate reflection on those that
    validate, and add a version with the same segmenter, byte for byte.

    It becomes active if the active version has no synthesizer. A training that was killed goes on where it was when it
    is started again with the same data and settings. Raises BadInput for data that does not fit the model (naming the
    file), RefSegError if training breaks down, Cancelled if the user asked to stop.
    """
    if epochs < 1:
        raise BadInput(f"{epochs} epochs train nothing; ask for at least 1.")
    spec = with_synthesizer(version.spec)
    roles = by_role(cases)
    data = described(cases, roles)
    origin = f"{version.name}@{version.version}"
    recipe = ["synthesizer", spec.model_dump(mode="json"), data["fingerprint"], epochs, seed, origin]
    folder = workplace(store, json.dumps(recipe))
    samples = read_samples(roles, spec, folder / "cache", progress.part(0.0, 0.1))

    synthesizer = started(build_synthesizer, spec, seed, None)
    fitted = train_synthesizer(
        synthesizer,
        spec,
        samples["train"],
        samples["validation"],
        epochs=epochs,
        seed=seed,
        checkpoint=folder / "synthesizer.checkpoint",
        progress=progress.part(0.1, 0.7),
    )
    device = best_device()
    runner = ready_segmenter(spec, restored_segmenter(version), str(device))
    if isinstance(runner, TorchSegmenter) and runner.reason:
        log.warning(runner.reason)
    reflection = calibrate(
        samples["validation"], runner, Synthesizer(spec, synthesizer), seed=seed, progress=progress.part(0.7, 0.96)
    )
    scores = {
        role: measure(runner, roles[role], progress.part(start, start + 0.02))
        for role, start in (("validation", 0.96), ("test", 0.98))
    }
    added = store.add(
        spec,
        version.segmenter_bytes(),
        arrays(synthesizer),
        parent=origin,
        data=version.manifest.data | {"synthesizer": data},
        settings=version.manifest.settings
        | {
            "synthesizer": {
                "epochs": epochs,
                "seed": seed,
                "batch": batch_of(spec),
                "device": device.type,
                "bfloat16": has_bfloat16(device),
                "torch": torch.__version__,
                "seconds": round(fitted.seconds),
                "history": fitted.history,
            }
        },
        scores=scores | {"synthesizer": {"validation": {"ssim": round(fitted.score, 4)}}},
        reflection=reflection.model_dump(mode="json"),
    )
    if store.load(added.name).synthesizer() is None:
        store.activate(added.name, added.version)
    shutil.rmtree(folder, ignore_errors=True)
    progress(1.0, f"{added.name} {added.version} is ready")
    return added
