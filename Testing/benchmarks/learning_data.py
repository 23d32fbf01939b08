"""The patients and the start models of bench_learning.

Hippocampus (msd_hippocampus): a start on 8 training patients, a stream of 40 others. Hearts (acdc): a start on 5
patients of the first pathology, a stream of 30 others, pathology after pathology, one of their two frames by hash.
Patients that test are those of RefSegLib/training/split.py and are used for nothing else; nothing is chosen on them.

The pathology of a heart is told by its number alone, in ACDC's usual order. MINF comes first because it has the most
patients that test (5 of 14; 2 in a group otherwise): forgetting is measured on them. It has 9 that train, so that 4 are
left for the stream; the other groups give 6 or 7.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from reflection_data import hearts
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.training.cases import Case, Sample, cached_samples, pair_cases
from RefSegLib.training.segmenter import train_segmenter
from RefSegLib.training.train import arrays, started

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("REFSEG_DATA", ROOT.parent / "shared" / "data"))
OUT = Path(os.environ.get("REFSEG_OUT", ROOT / "out")) / "bench-learning"

NETWORKS = {
    "hippocampus": Network(name="unet", arguments={"filters": [16, 32, 64, 128]}),
    "heart": Network(name="dynunet", arguments={"filters": [12, 24, 48, 96]}),
}
GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")  # patients 1 to 20, 21 to 40, ...
TASKS = {"MINF": 4, "DCM": 6, "HCM": 7, "NOR": 7, "RV": 6}


@dataclass(frozen=True)
class Set:
    """What is learnt, and from whom. first: test cases on which forgetting is measured; epochs: of the start and of
    the training offline."""

    spec: SegmenterSpec
    start: list[Case]
    stream: list[Case]
    validation: list[Case]
    test: list[Case]
    first: list[str]
    epochs: tuple[int, int]

    @property
    def folder(self) -> Path:
        """Where everything of this set is kept."""
        return OUT / self.spec.name

    def samples(self, cases: list[Case]) -> list[Sample]:
        """The cases as the network sees them, with their full masks."""
        return [s for case in cases for s in cached_samples(case, self.spec, self.folder / "cache")]


def group(case: Case) -> str:
    """The pathology of a heart, by its number."""
    return GROUPS[(int(case.patient.removeprefix("patient")) - 1) // 20]


def load_set(name: str) -> Set:
    """ "hippocampus" or "heart"."""
    return _hippocampus() if name == "hippocampus" else _heart()


def start_model(wanted: Set) -> Path:
    """The home whose store holds the start model, trained now if it is not there."""
    home = wanted.folder / "start"
    store = ModelStore(home)
    if wanted.spec.name not in store.names():
        module = started(build_segmenter, wanted.spec, 0, None)
        trained(
            module, wanted, wanted.start, wanted.validation[:4], wanted.epochs[0], wanted.folder / "start.checkpoint"
        )
        told = {"patients": sorted({case.patient for case in wanted.start})}
        version = store.add(wanted.spec, arrays(module), data=told)
        store.activate(wanted.spec.name, version.version)
    return home


def trained(
    module: torch.nn.Module, wanted: Set, train: list[Case], judge: list[Case], epochs: int, checkpoint: Path
) -> None:
    """Train as `refseg train` does, keeping what does best on `judge`; goes on where it was killed."""
    train_segmenter(
        module,
        wanted.spec,
        wanted.samples(train),
        wanted.samples(judge),
        epochs=epochs,
        seed=0,
        checkpoint=checkpoint,
    )


def active(home: Path, wanted: Set) -> ModelVersion:
    """The live version of a home."""
    store = ModelStore(home)
    return store.load(wanted.spec.name, store.active(wanted.spec.name))


def _by_hash(cases: list[Case]) -> list[Case]:
    return sorted(cases, key=lambda c: (hashlib.sha256(c.patient.encode()).hexdigest(), c.name))


def _spec(name: str, labels: tuple[str, ...], **more: object) -> SegmenterSpec:
    named = tuple(Label(value=n, name=label, color=(1, 0, 0)) for n, label in enumerate(labels, 1))
    network = NETWORKS[name]
    name = f"{name}-stream"  # a shipped model has the plain name
    return SegmenterSpec(name=name, channels=("MR",), labels=named, aligned=False, network=network, **more)


def _hippocampus() -> Set:
    cases = _by_hash(pair_cases(DATA / "msd_hippocampus" / "images", DATA / "msd_hippocampus" / "labels"))
    roles = {role: [c for c in cases if c.role == role] for role in ("train", "validation", "test")}
    spec = _spec("hippocampus", ("anterior", "posterior"), spacing=(1, 1, 1), patch=(40, 56, 40))
    test = roles["test"]
    return Set(
        spec, roles["train"][:8], roles["train"][8:48], roles["validation"], test, [c.name for c in test], (60, 120)
    )


def _heart() -> Set:
    cases = _by_hash(hearts(DATA, OUT))
    roles = {role: [c for c in cases if c.role == role] for role in ("train", "validation", "test")}
    patients = {name: list(dict.fromkeys(c.patient for c in roles["train"] if group(c) == name)) for name in TASKS}
    first = next(iter(TASKS))
    beginning, patients[first] = patients[first][:5], patients[first][5:]
    stream = []
    for name, count in TASKS.items():
        for patient in patients[name][:count]:
            frames = [c for c in roles["train"] if c.patient == patient]
            stream.append(frames[hashlib.sha256(patient.encode()).digest()[0] % 2])
    # The pixel is 360 mm by the longer side of the image (reflection_data), so that 120 of 3 mm are a whole slice.
    spec = _spec("heart", ("RV", "myocardium", "LV"), dimensions=2, spacing=(0, 3, 3), patch=(1, 120, 120))
    start = [c for c in roles["train"] if c.patient in beginning]
    mine = [c.name for c in roles["test"] if group(c) == first]
    return Set(spec, start, stream, roles["validation"], roles["test"], mine, (300, 300))
