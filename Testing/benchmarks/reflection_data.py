"""The networks and the images of bench_reflection: made once, kept in a folder, found again.

ACDC and the chest X-rays lost the size of their pixels. Each image is given the one it would have if its longer side
showed 360 mm of a chest (320 mm on an X-ray), so that one network can look at all of them at one scale; the labels
play no part in this, and whole slices are looked at, nowhere a crop around the truth.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from RefSegLib.models.networks import build_segmenter, build_synthesizer
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.synthesis.training import train_synthesizer
from RefSegLib.training.augment import Augmentation
from RefSegLib.training.cases import Case, Sample, cached_samples, pair_cases
from RefSegLib.training.segmenter import train_segmenter
from safetensors.torch import load_file, save_file

FILTERS = [16, 32, 64, 128]
PATCH = (1, 160, 160)
EPOCHS = {"heart": 240, "lung": 150}
SYNTHESIZER_EPOCHS = {"heart": 120, "lung": 60}
PLAIN = Augmentation(looks=0.0)
# B: somebody else's model. I: no intensity augmentation, no batch statistics. A: as `refseg train` trains.
NETWORKS = {"B": ("batch", PLAIN), "I": ("instance", PLAIN), "A": ("instance", Augmentation())}


def spec_of(organ: str, network: str) -> SegmenterSpec:
    """What network B, I or A of "heart" (ACDC) or "lung" (JSRT) expects and gives."""
    names = ("right ventricle", "myocardium", "left ventricle") if organ == "heart" else ("lungs",)
    return SegmenterSpec(
        name=f"{organ}-{network}",
        dimensions=2,
        channels=("MR" if organ == "heart" else "X-ray",),
        labels=tuple(Label(value=n, name=name, color=(1, 0, 0)) for n, name in enumerate(names, 1)),
        spacing=(0, 2.25, 2.25) if organ == "heart" else (0, 2, 2),
        patch=PATCH,
        aligned=False,
        network=Network(name="unet", arguments={"filters": FILTERS, "norm": NETWORKS[network][0]}),
        synthesizer=Network(name="unet", arguments={"filters": FILTERS[:3], "norm": "batch"}),
    )


def hearts(data: Path, folder: Path) -> list[Case]:
    """ACDC with pixels of a likely size, both phases of every patient."""
    return _prepared(data / "acdc", "labels", folder / "heart", 360.0, {})


def lungs(data: Path, folder: Path, site: str) -> list[Case]:
    """Chest X-rays of JSRT, Montgomery or Shenzhen with both lungs as one label."""
    values = {150: 1, 200: 1, 250: 0, 255: 1} if site != "JSRT" else {150: 1, 200: 1, 250: 0}
    return _prepared(data / "cxr_lung" / site, "masks", folder / site, 320.0, values)


def _prepared(source: Path, labels: str, target: Path, width: float, values: dict[int, int]) -> list[Case]:
    done = target / "done.json"
    if not done.exists():
        for what, name in (("images", "images"), ("labels", labels)):
            (target / what).mkdir(parents=True, exist_ok=True)
            for file in sorted(p for p in (source / name).iterdir() if p.name.endswith((".nii.gz", ".png"))):
                image = sitk.ReadImage(str(file))
                array = sitk.GetArrayFromImage(image)
                array = array[..., 0] if image.GetNumberOfComponentsPerPixel() > 1 else array
                if what == "labels" and values:
                    array = np.select([array == value for value in values], list(values.values()), 0).astype(np.uint8)
                result = sitk.GetImageFromArray(array)
                pixel = width / max(image.GetSize()[:2])
                result.SetSpacing([pixel, pixel, 10.0][: array.ndim])
                sitk.WriteImage(result, str(target / what / f"{file.name.split('.')[0]}.mha"), True)
        done.write_text("{}")
    return pair_cases(target / "images", target / "labels")


def samples_of(cases: list[Case], organ: str, folder: Path) -> list[Sample]:
    """The cases as networks see them."""
    return [sample for case in cases for sample in cached_samples(case, spec_of(organ, "A"), folder / "cache")]


def trained(organ: str, name: str, train: list[Sample], validation: list[Sample], folder: Path) -> torch.nn.Module:
    """Network B, I or A, or "synthesizer", of an organ: from its file, or trained now, going on where it was killed."""
    file = folder / f"{organ}-{name}.safetensors"
    spec = spec_of(organ, "A" if name == "synthesizer" else name)
    torch.manual_seed(0)
    module = build_synthesizer(spec) if name == "synthesizer" else build_segmenter(spec)
    if not file.exists():
        settings = {"seed": 0, "checkpoint": folder / f"{organ}-{name}.checkpoint"}
        if name == "synthesizer":
            fit = train_synthesizer(module, spec, train, validation, epochs=SYNTHESIZER_EPOCHS[organ], **settings)
        else:
            looks = NETWORKS[name][1]
            fit = train_segmenter(module, spec, train, validation, epochs=EPOCHS[organ], augmentation=looks, **settings)
        said = {"score": fit.score, "seconds": round(fit.seconds), "history": fit.history}
        file.with_suffix(".json").write_text(json.dumps(said))
        save_file(module.state_dict(), file)
    module.load_state_dict(load_file(file))
    return module.eval()


if __name__ == "__main__":
    import logging
    import sys

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data, folder, organ, *names = sys.argv[1:]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = hearts(Path(data), folder) if organ == "heart" else lungs(Path(data), folder, "JSRT")
    parts = {role: samples_of([c for c in cases if c.role == role], organ, folder) for role in ("train", "validation")}
    for name in names:
        trained(organ, name, parts["train"], parts["validation"], folder)
