"""Whatever comes in, reflection says a clear sentence, loses no mask, and leaves the model as it was."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.inference.predict import segment
from RefSegLib.inference.segmenter import TorchSegmenter
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.progress import Progress
from RefSegLib.reflection.reflect import reflect
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

MIXED = ReflectionSettings(candidates=("identity", "denoised", "gamma 2 @ 0.5", "identity @ 1"), margin=-9.0, steps=1)


def spec(dimensions: int) -> SegmenterSpec:
    return SegmenterSpec(
        name="balls",
        dimensions=dimensions,
        channels=("MR",),
        labels=(Label(value=1, name="ball", color=(1, 0, 0)),),
        spacing=(0, 0, 0),
        patch=(1, 16, 16) if dimensions == 2 else (8, 16, 16),
        network=Network(name="unet", arguments={"filters": [4, 8, 8], "norm": "batch"}),
    )


@pytest.fixture(params=[2, 3])
def model(request):
    """A real batch-norm network and its synthesizer; random, for what must hold whatever they have learned."""
    torch.manual_seed(0)
    wanted = spec(request.param)
    return TorchSegmenter(wanted, build_segmenter(wanted)), Synthesizer(wanted, build_synthesizer(wanted))


def image(shape=(8, 20, 24), direction=None, seed: int = 0) -> Volume:
    grid = Grid(shape, (3.0, 1.0, 0.8), np.eye(3) if direction is None else direction, (5.0, -7.0, 11.0))
    return Volume(np.random.default_rng(seed).random((1, *shape), np.float32), grid)


def reflected(volume: Volume, model, settings: ReflectionSettings = MIXED, progress: Progress | None = None):
    network, synthesizer = model

    def refine(array, probabilities, segmenter, part):
        return reflect(array, segmenter, synthesizer, settings, probabilities=probabilities, progress=part)

    return segment(volume, network, refine=refine, **({"progress": progress} if progress else {}))


def hash_of(network: TorchSegmenter) -> str:
    digest = hashlib.sha256()
    for name, value in network.module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    "value, said", [(np.nan, "not numbers|NaN|number"), (3.0, "one single value|same value|constant")]
)
def test_images_without_content_are_refused_with_a_sentence(model, value, said):
    volume = image()
    volume = Volume(np.full_like(volume.array, value), volume.grid)
    with pytest.raises(BadInput, match=said):
        reflected(volume, model)


def test_a_few_missing_numbers_are_refused_as_well(model):
    volume = image()
    volume.array[0, 2, 3, 4] = np.nan
    with pytest.raises(BadInput):
        reflected(volume, model)


@pytest.mark.parametrize("shape", [(1, 20, 24), (8, 1, 24), (2, 3, 3)])
def test_single_slices_and_tiny_images_come_back_whole(model, shape):
    found = reflected(image(shape), model)
    assert found.labels.array.shape == shape
    (region,) = found.regions
    assert np.isfinite(region.reflection.probabilities).all() and region.reflection.reason


def test_the_result_does_not_hang_on_how_the_axes_are_stored(model):
    straight = image()
    flipped = Volume(
        np.ascontiguousarray(straight.array[:, :, ::-1]),
        _flipped(straight.grid),
    )
    a, b = reflected(straight, model), reflected(flipped, model)
    assert np.array_equal(a.labels.array[:, ::-1], b.labels.array)


def _flipped(grid: Grid) -> Grid:
    """The same voxels with the j axis running backwards."""
    direction = np.array(grid.direction)
    origin = np.array(grid.origin) + direction[1] * grid.spacing[1] * (grid.shape[1] - 1)
    direction[1] = -direction[1]
    return Grid(grid.shape, grid.spacing, direction, tuple(origin))


def test_a_model_without_a_synthesizer_segments_and_says_why_it_does_not_reflect(model):
    found = reflected(image(), (model[0], None))
    assert "no synthesizer" in found.regions[0].reflection.reason
    assert np.array_equal(found.labels.array, segment(image(), model[0]).labels.array)


def test_cancel_at_any_step_leaves_a_batch_norm_model_as_it_was(model):
    network = model[0]
    before = hash_of(network)
    reports: list[str] = []
    reflected(image(), model, progress=Progress(lambda _, text: reports.append(text)))
    assert any("Adjusting" in text for text in reports) and any("@ 1" in text for text in reports)
    assert hash_of(network) == before
    for stop in range(0, len(reports), 3):
        asked = iter(range(len(reports) + 1))
        with pytest.raises(Cancelled):
            reflected(image(), model, progress=Progress(cancelled=lambda a=asked, s=stop: next(a) >= s))
        assert hash_of(network) == before


def test_an_adjustment_that_diverges_is_not_kept(model):
    network = model[0]
    before = hash_of(network)
    wild = reflected(image(), model, MIXED.model_copy(update={"rate": 1e30, "margin": 9.0}))
    assert np.isfinite(wild.regions[0].reflection.probabilities).all()
    assert np.array_equal(wild.labels.array, segment(image(), network).labels.array)
    assert hash_of(network) == before


SHORT_OF_MEMORY = """
import json, resource, sys
import numpy as np, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_reflection_bad_input import MIXED, TorchSegmenter, Synthesizer, hash_of, spec
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.inference.tiling import infer
from RefSegLib.reflection.reflect import reflect
torch.manual_seed(0)
wanted = spec(3)
network, synthesizer = TorchSegmenter(wanted, build_segmenter(wanted)), Synthesizer(wanted, build_synthesizer(wanted))
small = np.random.default_rng(0).random((1, 8, 16, 16), np.float32)
reflect(small, network, synthesizer, MIXED)  # everything is loaded
array = np.random.default_rng(0).random((1, 48, 128, 128), np.float32)
first = np.full((2, 48, 128, 128), 0.5, np.float32)
before = hash_of(network)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (56 << 20), -1))
found = reflect(array, network, synthesizer, MIXED, probabilities=first)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(json.dumps([found.reason, bool(np.array_equal(found.probabilities, first)), hash_of(network) == before]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are set as Linux knows them")
def test_a_process_that_runs_out_of_memory_keeps_the_first_mask(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(Path(__file__).parent)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    reason, same, untouched = json.loads(run.stdout.splitlines()[-1])
    assert "Memory ran out" in reason and same and untouched
