"""Other people's models of every format: run like our own, and what is none is refused in a sentence."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from InteractiveLearningLib import cli
from RefSegLib.errors import BadInput
from RefSegLib.inference.segmenter import OpenVinoSegmenter, load_segmenter
from RefSegLib.models.importing.importer import import_model
from RefSegLib.models.networks import restored_segmenter
from RefSegLib.models.store import ModelStore
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_labels, write_image
from RefSegLib.volume.volume import Volume

sys.path.insert(0, str(Path(__file__).parent))
from importing_samples import a_description, a_unet, bundle, results, traced


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def described(tmp_path) -> Path:
    return a_description(tmp_path)


@pytest.mark.parametrize("which", ["3d_fullres", "2d", "bundle"])
def test_imported_networks_run_in_the_fast_backend_and_give_the_same(tmp_path, store, which):
    place = bundle(tmp_path / "spleen", a_unet()) if which == "bundle" else results(tmp_path, configuration=which)
    version = import_model(place, store)
    fast = load_segmenter(version, "cpu")
    assert isinstance(fast, OpenVinoSegmenter), fast.reason
    x = np.random.default_rng(0).normal(size=(2, len(version.spec.channels), *version.spec.patch)).astype(np.float32)
    with torch.inference_mode():
        expected = restored_segmenter(version).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(fast.logits(x), expected, atol=1e-3)


def test_an_imported_file_segments_on_the_command_line_and_says_it_cannot_reflect(tmp_path, described, capsys):
    image = np.random.default_rng(0).normal(100, 4, (20, 22, 24)).astype(np.float32)
    image[5:12, 6:15, 8:17] += 300
    write_image(Volume(image, Grid(image.shape, (2.0, 1.0, 1.5))), tmp_path / "image.nii.gz")
    traced(tmp_path / "bright.pt", "foreground logit")
    words = ("models", "import", f"{tmp_path}/bright.pt", "--spec", f"{described}", "--gives", "foreground logit")
    assert run(*words, "--name", "glow", at=tmp_path) == 0
    assert "train-synthesizer" in capsys.readouterr().out
    segment = ("segment", f"{tmp_path}/image.nii.gz", "--model", "glow", "--out", f"{tmp_path}/mask.nii.gz")
    assert run(*segment, at=tmp_path) == 0
    found = read_labels(tmp_path / "mask.nii.gz").array
    assert (found == (image > 250)).all()
    assert run(*segment, "--reflect", at=tmp_path) == 2
    assert "no synthesizer" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent", None, "There is no"),
        ("net.onnx", b"onnx", "ONNX"),
        ("net.pt", b"\x80\x02}q\x00.", "not a model that can be imported"),
        ("weights.pt", "weights", "weights without their network"),
        ("cut.pt", "cut", "damaged"),
        ("folder", "folder", "neither a MONAI bundle"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(tmp_path, store, described, name, content, reason):
    file = tmp_path / name
    if content == "weights":
        torch.save(a_unet().state_dict(), file)
    elif content == "cut":
        whole = traced(file, "logits").read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=reason):
        import_model(file, store, spec=described, gives="logits")


def run(*words: str, at) -> int:
    """The exit code of `refseg WORDS... --store AT/store`."""
    before, sys.argv = sys.argv, ["refseg", *words, "--store", f"{at}/store"]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0
