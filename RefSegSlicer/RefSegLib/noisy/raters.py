"""Several people's masks of one image: folders by rater, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from RefSegLib.errors import BadInput
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.training.cases import Case, cached_samples
from RefSegLib.training.split import Role, patient_of, split_of
from RefSegLib.volume.io import case_name, image_files, read_labels, write_labels
from RefSegLib.volume.volume import LabelMap

ONE = "the masks"  # what a single folder of masks is called in reports


@dataclass(frozen=True)
class RatedCase:
    """An image file and the files of its masks, by rater; at least one."""

    name: str
    image: Path
    masks: dict[str, Path]

    @property
    def patient(self) -> str:
        """Whose image it is, by its name."""
        return patient_of(self.name)

    @property
    def role(self) -> Role:
        """Whether it trains, validates or tests."""
        return split_of(self.patient)

    def cases(self) -> list[Case]:
        """One case for each mask."""
        return [Case(self.name, self.image, file) for file in self.masks.values()]


@dataclass(frozen=True)
class RatedSample:
    """What the network sees of a case: one region on its working grid, with all masks of it.

    image: (C, k, j, i) float32, normalized; given: (raters, k, j, i) uint16, 0 is background; raters: their names;
    spacing: mm along k, j, i.
    """

    name: str
    image: npt.NDArray[np.float32]
    given: npt.NDArray[np.uint16]
    raters: tuple[str, ...]
    spacing: tuple[float, float, float]


def rated_cases(images: Path, masks: Sequence[Path]) -> list[RatedCase]:
    """Images and the masks of the same names, sorted by name.

    masks: folders of masks, one a rater; or one folder that holds nothing but one folder a rater. Not every rater has
    to have outlined every image, but somebody each. Raises BadInput, naming the file, for an image without a mask or a
    mask without an image, and for raters of one name.
    """
    files = {case_name(file): file for file in image_files(Path(images))}
    if not files:
        raise BadInput(f"There are no images in '{images}'.")
    found: dict[str, dict[str, Path]] = {name: {} for name in files}
    for rater, folder in _folders(masks).items():
        inside = image_files(folder)
        if not inside:
            raise BadInput(f"There are no masks in '{folder}'.")
        for file in inside:
            name = case_name(file)
            if name not in found:
                raise BadInput(
                    f"The mask '{file}' has no image of the same name in '{images}'. Add it, or take the mask out."
                )
            found[name][rater] = file
    alone = [name for name, theirs in sorted(found.items()) if not theirs]
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise BadInput(f"Nobody has a mask of '{files[alone[0]]}'{more}. Add one, or take the image out.")
    return [RatedCase(name, files[name], found[name]) for name in sorted(files)]


def _folders(masks: Sequence[Path]) -> dict[str, Path]:
    """The folder of each rater, by name."""
    masks = [Path(folder) for folder in masks]
    for folder in masks:
        if not folder.is_dir():
            raise BadInput(f"There is no folder '{folder}'.")
    if len(masks) == 1:
        inside = sorted(entry for entry in masks[0].iterdir() if entry.is_dir())
        return {entry.name: entry for entry in inside} if inside and not image_files(masks[0]) else {ONE: masks[0]}
    names = [folder.resolve().name for folder in masks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"Two folders of masks are called '{twice[0]}'. Name each by its rater.")
    return dict(zip(names, masks, strict=True))


def rated_samples(case: RatedCase, spec: SegmenterSpec, cache: Path) -> list[RatedSample]:
    """What training sees of a case, one sample per region of the model. Raises BadInput as `load_samples`."""
    by_rater = [cached_samples(one, spec, cache) for one in case.cases()]
    return [
        RatedSample(same[0].name, same[0].image, np.stack([s.labels for s in same]), tuple(case.masks), same[0].spacing)
        for same in zip(*by_rater, strict=True)
    ]


def votes(given: npt.NDArray, outputs: int) -> npt.NDArray[np.float32]:
    """The share of raters (raters, k, j, i) that say each label: (outputs, k, j, i) float32, summing to 1."""
    return np.stack([(given == value).mean(0, dtype=np.float32) for value in range(outputs)])


def consensus(given: npt.NDArray) -> npt.NDArray:
    """The label most raters (raters, k, j, i) say, as (k, j, i) of the same type; among equals the smallest number,
    so background before a structure."""
    if len(given) == 1:
        return given[0]
    values = np.unique(given)
    counts = np.stack([(given == value).sum(0) for value in values])
    return values[counts.argmax(0)].astype(given.dtype)


def consensus_case(case: RatedCase, folder: Path) -> Case:
    """The case with the mask most raters agree on, written to `folder`; with one rater, as it is.

    Raises BadInput, naming the files, if the masks lie on different grids.
    """
    files = list(case.masks.values())
    if len(files) == 1:
        return Case(case.name, case.image, files[0])
    maps = [read_labels(file) for file in files]
    for file, labels in zip(files, maps, strict=True):
        if not labels.grid.same_as(maps[0].grid, tolerance=0.1 * min(maps[0].grid.spacing)):
            raise BadInput(f"The masks '{files[0]}' and '{file}' of one image lie on different grids.")
    target = folder / f"{case.name}.nii.gz"
    write_labels(LabelMap(consensus(np.stack([labels.array for labels in maps])), maps[0].grid), target)
    return Case(case.name, case.image, target)
