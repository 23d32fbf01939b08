"""From folders of images and masks to what a network trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import BadInput
from RefSegLib.inference.predict import prepare
from RefSegLib.inference.region import find_regions
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.training.split import Role, patient_of, split_of
from RefSegLib.volume.io import case_name, image_files, read_image, read_labels
from RefSegLib.volume.resample import resample_labels


@dataclass(frozen=True)
class Case:
    """An image file and the file of its mask."""

    name: str
    image: Path
    labels: Path

    @property
    def patient(self) -> str:
        """Whose image it is, by its name."""
        return patient_of(self.name)

    @property
    def role(self) -> Role:
        """Whether it trains, validates or tests."""
        return split_of(self.patient)


@dataclass(frozen=True)
class Sample:
    """What the network sees of a case: one region on its working grid.

    image: (C, k, j, i) float32, normalized; labels: (k, j, i) uint16, 0 is background; spacing: mm along k, j, i.
    """

    name: str
    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint16]
    spacing: tuple[float, float, float]


def pair_cases(images: Path, labels: Path) -> list[Case]:
    """The cases of two folders, by equal names, sorted. Raises BadInput if either is empty or a file stands alone."""
    found = {}
    for what, folder in (("images", images), ("masks", labels)):
        files = {case_name(file): file for file in image_files(Path(folder))}
        if not files:
            raise BadInput(f"There are no {what} in '{folder}'.")
        found[what] = files
    for what, other, folder in (("images", "masks", labels), ("masks", "images", images)):
        alone = sorted(found[what].keys() - found[other].keys())
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise BadInput(
                f"'{found[what][alone[0]]}'{more} has no file of the same name among the {other} in '{folder}'. "
                "Add it, or take the single one out."
            )
    return [Case(name, found["images"][name], found["masks"][name]) for name in sorted(found["images"])]


def load_samples(case: Case, spec: SegmenterSpec) -> list[Sample]:
    """Read, check, bring to the working grid and normalize a case: one sample per region of the model.

    Raises BadInput, naming the file, if image and mask lie on different grids, the mask holds values the model does
    not know, or the image has the wrong number of channels or cannot be segmented at all.
    """
    volume, truth = read_image(case.image), read_labels(case.labels)
    volume.check(f"'{case.image}'")
    if volume.channels != len(spec.channels):
        raise BadInput(
            f"'{case.image}' has {volume.channels} channels, but model '{spec.name}' takes {len(spec.channels)} "
            f"({', '.join(spec.channels)})."
        )
    if not volume.grid.same_as(truth.grid, tolerance=0.1 * min(volume.grid.spacing)):
        raise BadInput(
            f"The mask '{case.labels}' ({truth.grid.shape} voxels) does not lie on the grid of its image "
            f"({volume.grid.shape} voxels), or is shifted against it."
        )
    offsets = {0} | {box.offset for box in spec.region.boxes}
    known = {0} | {label.value + offset for label in spec.labels for offset in offsets}
    unknown = sorted(set(np.unique(truth.array).tolist()) - known)
    if unknown:
        raise BadInput(f"The mask '{case.labels}' holds the values {unknown}, which model '{spec.name}' does not know.")
    samples = []
    for region in find_regions(volume, spec):
        image = prepare(volume, region.grid, spec)
        labels = resample_labels(truth, region.grid).array.astype(np.int64) - region.offset
        labels[(labels < 0) | (labels > len(spec.labels))] = 0
        name = case.name if region.side is None else f"{case.name} {region.side}"
        samples.append(Sample(name, image, labels.astype(np.uint16), region.grid.spacing))
    return samples


def cached_samples(case: Case, spec: SegmenterSpec, folder: Path) -> list[Sample]:
    """load_samples, kept in `folder` and mapped into memory from there, so that large sets fit."""
    recipe = f"{sha256_of(case.image)} {sha256_of(case.labels)} {spec.model_dump_json()}"
    return kept_samples(recipe, folder, lambda: load_samples(case, spec))


def kept_samples(recipe: str, folder: Path, load: Callable[[], list[Sample]]) -> list[Sample]:
    """What `load` gives, kept in `folder` under the hash of `recipe` and mapped into memory from there."""
    place = folder / hashlib.sha256(recipe.encode()).hexdigest()[:32]
    done = place.with_suffix(".names")
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        samples = load()
        for number, sample in enumerate(samples):
            np.save(f"{place}.{number}.image.npy", sample.image)
            np.save(f"{place}.{number}.labels.npy", sample.labels)
        # Written last: without it a half-written case is simply made again.
        done.write_text("\n".join(f"{s.name}\t{' '.join(map(str, s.spacing))}" for s in samples))
    samples = []
    for number, line in enumerate(done.read_text().splitlines()):
        name, spacing = line.split("\t")
        arrays = (np.load(f"{place}.{number}.{what}.npy", mmap_mode="r") for what in ("image", "labels"))
        samples.append(Sample(name, *arrays, tuple(map(float, spacing.split()))))
    return samples


def by_role(cases: Sequence[Case]) -> dict[Role, list[Case]]:
    """The cases of each role. Raises BadInput if nobody is left to train or to validate on."""
    roles: dict[Role, list[Case]] = {"train": [], "validation": [], "test": []}
    for case in cases:
        roles[case.role].append(case)
    for role in ("train", "validation"):
        if not roles[role]:
            patients = len({case.patient for case in cases})
            raise BadInput(
                f"None of the {patients} patients falls to {role}: patients are drawn by a hash of their name "
                "(65 % train, 15 % validation, 20 % test). Add more patients."
            )
    return roles


def fingerprint(cases: Iterable[Case]) -> str:
    """One sha256 for a whole set: over the sorted sha256 of all its files."""
    hashes = sorted(sha256_of(file) for case in cases for file in (case.image, case.labels))
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """The sha256 of a file's content."""
    digest = hashlib.sha256()  # hashlib.file_digest came with Python 3.11
    with Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
