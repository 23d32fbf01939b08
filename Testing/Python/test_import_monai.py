"""Bundles of MONAI: taken over exactly, refused in a sentence, and never trusted."""

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import FlexibleUNet
from RefSegLib.errors import BadInput
from RefSegLib.models.importing.importer import import_model
from RefSegLib.models.networks import restored_segmenter
from RefSegLib.models.spec import Normalization
from RefSegLib.models.store import ModelStore

sys.path.insert(0, str(Path(__file__).parent))
from importing_samples import Threat, a_spec, a_unet, bundle


@pytest.fixture
def store(tmp_path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.mark.parametrize("script", [False, True])
def test_a_bundle_gives_the_logits_that_its_network_gives(tmp_path, store, script):
    version = import_model(bundle(tmp_path / "spleen", a_unet(), script=script), store)
    spec = version.spec
    assert (spec.name, [label.name for label in spec.labels], spec.aligned) == ("spleen", ["spleen"], True)
    assert (spec.patch, spec.spacing) == ((8, 16, 16), (2.0, 1.25, 1.5))
    assert spec.normalization == Normalization(kind="window", low=-57, high=164)
    hounsfield = np.random.default_rng(0).uniform(-300, 300, (1, *spec.patch)).astype(np.float32)  # S, P, L
    theirs = np.clip((hounsfield + 57) / 221, 0, 1) * 2 - 1
    theirs = torch.from_numpy(theirs.transpose(0, 3, 2, 1)[:, ::-1, ::-1].copy())[None]  # R, A, S
    with torch.inference_mode():
        expected = a_unet()(theirs).numpy()[:, :, ::-1, ::-1].transpose(0, 1, 4, 3, 2)
        found = restored_segmenter(version).eval()(torch.from_numpy(spec.normalization(hounsfield))[None]).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"network_def": {"_target_": "UNet", "spatial_dims": "$len(@patch)"}}, "computed by a program"),
        ({"network_def": {"_target_": "scripts.nets.Mine"}}, "not one of monai.networks.nets"),
        ({"network_def": {"_target_": "torch.hub.load"}}, "not one of monai.networks.nets"),
        ({"network_def": {"_target_": "UNet", "sizes": 3}}, "does not take these arguments"),
        ({"network_def": "@nothing"}, "refers to nothing"),
        ({"network_def": "@network_def"}, "refers to nothing"),
        ({"changes": {"channels": [4, 8, 16]}}, "do not fit the network"),
        ({"inferer": {"roi_size": "$[96, 96, 96]"}}, "computed by a program"),
        ({"transforms": [{"_target_": "RandFlipd"}]}, "RandFlipd"),
        ({"transforms": [{"_target_": "LoadImaged"}]}, "how images are normalized"),
        ({"transforms": [{"_target_": "NormalizeIntensityd", "subtrahend": 3}]}, "subtrahend"),
        ({"transforms": [{"_target_": "CropForegroundd"}, {"_target_": "ScaleIntensityd"}]}, "cropped"),
    ],
)
def test_a_bundle_that_cannot_be_followed_is_refused_in_a_sentence(tmp_path, store, settings, reason):
    with pytest.raises(BadInput, match=reason):
        import_model(bundle(tmp_path / "spleen", a_unet(), **settings), store)


def test_a_bundle_can_be_described_by_hand(tmp_path, store):
    place = bundle(tmp_path / "spleen", a_unet(), transforms=[{"_target_": "Mine", "of": "$anything"}])
    wanted = a_spec(patch=[8, 16, 16], network={"name": "monai", "arguments": {"axes": "RAS"}})
    (tmp_path / "spec.json").write_text(json.dumps(wanted))
    version = import_model(place, store, spec=tmp_path / "spec.json", name="mine")
    assert version.spec.normalization.kind == "percentile"
    assert version.spec.network.arguments["class"] == "UNet"
    assert version.spec.network.arguments["axes"] == "RAS"


def test_a_bundle_with_an_encoder_from_the_internet_downloads_nothing(tmp_path, store, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("something was asked of the internet")

    monkeypatch.setattr(socket.socket, "connect", refused)
    arguments = {"in_channels": 1, "out_channels": 2, "backbone": "efficientnet-b0", "spatial_dims": 2}
    network = FlexibleUNet(**arguments, pretrained=False)
    definition = {"_target_": "monai.networks.nets.FlexibleUNet", **arguments, "pretrained": True}
    scaled = [{"_target_": "ScaleIntensityd"}]
    place = bundle(
        tmp_path / "flat", network, network_def=definition, transforms=scaled, inferer={"roi_size": [32, 64]}
    )
    version = import_model(place, store)
    assert (version.spec.patch, version.spec.dimensions) == ((1, 64, 32), 2)
    x = torch.rand(1, 1, 1, 64, 32)
    with torch.inference_mode():
        theirs = network.eval()(x[:, :, 0].transpose(2, 3)).transpose(2, 3)[:, :, None]
        torch.testing.assert_close(restored_segmenter(version).eval()(x), theirs, atol=1e-4, rtol=0)


def test_weights_of_a_bundle_that_run_a_program_are_not_opened(tmp_path, store):
    place, mark = bundle(tmp_path / "spleen", a_unet()), tmp_path / "was-run"
    torch.save({"model": a_unet().state_dict(), "more": Threat(mark)}, place / "models" / "model.pt")
    with pytest.raises(BadInput, match="could run any program"):
        import_model(place, store)
    assert not mark.exists()
