"""The heart model that bench_interaction corrects: trained on exactly ten patients of ACDC, both phases of each.

    python Testing/benchmarks/interaction_model.py [--probabilities FOLDER]

The ten are the first of those that train, by the hash of their name; the best weights are chosen on the first four of
those that validate. --probabilities writes what the model finds in the first twelve validation volumes, to tune on.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from interaction_data import OUT, SETS, cases, load, patient
from RefSegLib.engine import Engine
from RefSegLib.inference.predict import prepare
from RefSegLib.inference.region import find_regions
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Network, SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.training.cases import Sample
from RefSegLib.training.segmenter import train_segmenter
from RefSegLib.training.train import arrays, started
from RefSegLib.volume.resample import resample_array, resample_labels
from RefSegLib.volume.volume import Volume

PATIENTS = 10
EPOCHS = 300


def spec() -> SegmenterSpec:
    """Slice by slice, with the whole chest in sight.

    On the validation patients below, after as long: this .71, 112 pixels of 2 mm .69, three dimensions (8 x 128 x 128)
    .49 when it was stopped after 54 of 130 epochs.
    """
    return SegmenterSpec(
        name="heart-of-ten",
        dimensions=2,
        channels=("MR",),
        labels=SETS["acdc"].segments,
        spacing=(0, 2.25, 2.25),
        patch=(1, 128, 128),
        aligned=False,
        network=Network(name="dynunet", arguments={"filters": [16, 32, 64, 128, 128]}),
    )


def samples(names: list[str], wanted: SegmenterSpec) -> list[Sample]:
    """Cases of ACDC as the network sees them."""
    found = []
    for name in names:
        volume, labels = load("acdc", name)
        grid = find_regions(volume, wanted)[0].grid
        truth = resample_labels(labels, grid).array
        found.append(Sample(name, prepare(volume, grid, wanted), truth, grid.spacing))
    return found


def first_patients(split: str, count: int) -> list[str]:
    """All files of the first patients of a split, by the hash of their name."""
    names = cases("acdc", split)
    chosen = list(dict.fromkeys(map(patient, names)))[:count]
    return [name for name in names if patient(name) in chosen]


def heart_model() -> ModelVersion:
    """The model of ten patients: from the benchmark's store, or trained now (ten minutes of one core)."""
    store, wanted = ModelStore(OUT / "store"), spec()
    if wanted.name in store.names():
        return store.load(wanted.name, store.active(wanted.name))
    train = first_patients("train", PATIENTS)
    module = started(build_segmenter, wanted, 0, None)
    fit = train_segmenter(
        module,
        wanted,
        samples(train, wanted),
        samples(first_patients("validation", 4), wanted),
        epochs=EPOCHS,
        seed=0,
        checkpoint=OUT / f"{wanted.name}.checkpoint",
    )
    told = {"patients": sorted({patient(name) for name in train})}
    settings = {"epochs": EPOCHS, "seed": 0, "seconds": round(fit.seconds), "history": fit.history}
    version = store.add(wanted, arrays(module), data=told, settings=settings, scores={"validation": fit.score})
    store.activate(wanted.name, version.version)
    return version


def found_by(engine: Engine, volume: Volume) -> npt.NDArray[np.float32]:
    """What a model sees in an image, as probabilities (outputs, k, j, i) on the image's own voxels."""
    region = engine.segment(volume, reflect=False).regions[0]
    layers = [
        resample_array(layer, region.region.grid, volume.grid, outside=float(n == 0))
        for n, layer in enumerate(region.probabilities)
    ]
    return np.stack(layers).astype(np.float32)


def main() -> None:
    """Train if needed; write probabilities if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--probabilities", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    version = heart_model()
    print(f"{version.name}@{version.version} in {version.folder}: {version.manifest.scores}")
    if options.probabilities is not None:
        options.probabilities.mkdir(parents=True, exist_ok=True)
        engine = Engine(version, "cpu")
        for name in cases("acdc", "validation", 12):
            found = found_by(engine, load("acdc", name)[0])
            file = options.probabilities / f"{name.removesuffix('.nii.gz')}.npz"
            names = [label.name for label in spec().labels]
            np.savez_compressed(file, names=names, probabilities=found.astype(np.float16))


if __name__ == "__main__":
    main()
