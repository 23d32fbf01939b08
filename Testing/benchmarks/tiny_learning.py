"""A task small enough to learn in seconds, a bright and a dim ball in noise: for tests and benchmarks of learning."""

from pathlib import Path

import numpy as np
import torch
from InteractiveLearningLib.accepted import AcceptedCase
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

NAMES = ("bright", "dim")
SPEC = SegmenterSpec(
    name="balls",
    channels=("MR",),
    labels=tuple(Label(value=n, name=name, color=(1, 0, n / 2)) for n, name in enumerate(NAMES, start=1)),
    spacing=(1, 1, 1),
    patch=(16, 16, 16),
    network=Network(name="unet", arguments={"filters": [6, 12, 12]}),
)


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights of a network by name."""
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def an_untrained_version(home: Path, seed: int = 0, spec: SegmenterSpec = SPEC) -> ModelVersion:
    """A version with random weights, active in the store under `home`."""
    torch.manual_seed(seed)
    store = ModelStore(home)
    version = store.add(spec, arrays(build_segmenter(spec)), arrays(build_synthesizer(spec)))
    store.activate(spec.name, version.version)
    return version


def an_image(seed: int, grid: Grid | None = None) -> tuple[Volume, LabelMap]:
    """Two balls in noise, somewhere else for every seed."""
    grid = grid or Grid((16, 16, 16))
    rng = np.random.default_rng(seed)
    indices = np.indices(grid.shape)
    labels = np.zeros(grid.shape, np.uint8)
    for value, side in ((1, 0.3), (2, 0.7)):
        center = np.asarray(grid.shape) * (0.5, side, side) + rng.uniform(-1.5, 1.5, 3)
        distance = np.linalg.norm(
            (indices - center[:, None, None, None]) * np.asarray(grid.spacing)[:, None, None, None], axis=0
        )
        labels[distance < rng.uniform(2.5, 3.5)] = value
    image = np.choose(labels, (0.0, 2.0, 1.0)) + rng.normal(0, 0.15, grid.shape)
    return Volume(image.astype(np.float32), grid), LabelMap(labels, grid)


def a_ball_case(patient: str, seed: int, **changes) -> AcceptedCase:
    """An accepted case with a full mask."""
    image, labels = an_image(seed)
    values = {"model": SPEC.name, "image": image, "labels": labels, "patient": patient, "label_names": NAMES}
    return AcceptedCase(**(values | changes))
