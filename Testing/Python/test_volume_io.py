"""Images and masks are read and written with every voxel at its place, or refused with a sentence."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import case_name, image_files, read_image, read_labels, write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume
from small_disk import a_small_disk, no_file_larger_than

VOLUMES = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]
FLAT = [".png", ".tif", ".bmp"]
PLANAR = Grid((1, 30, 40), planar=True)


def noise(shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(dtype) if dtype == np.float32 else rng.integers(0, 250, shape).astype(dtype)


# -- there and back


@pytest.mark.parametrize("suffix", VOLUMES)
def test_an_image_comes_back_voxel_for_voxel(tmp_path, a_grid, suffix):
    volume = Volume(noise(a_grid.shape), a_grid)
    write_image(volume, tmp_path / f"image{suffix}")
    again = read_image(tmp_path / f"image{suffix}")
    assert again.grid.same_as(a_grid, tolerance=1e-3)
    assert again.array.dtype == np.float32
    assert np.array_equal(again.array, volume.array)


@pytest.mark.parametrize("suffix", [*VOLUMES, ".seg.nrrd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_comes_back_voxel_for_voxel(tmp_path, a_grid, suffix, dtype):
    labels = LabelMap(noise(a_grid.shape, dtype) * (1 if dtype == np.uint8 else 200), a_grid)
    write_labels(labels, tmp_path / f"mask{suffix}")
    again = read_labels(tmp_path / f"mask{suffix}")
    assert again.grid.same_as(a_grid, tolerance=1e-3)
    assert again.array.dtype == dtype
    assert np.array_equal(again.array, labels.array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_channels_come_back_in_their_order(tmp_path, a_grid, suffix):
    volume = Volume(noise((3, *a_grid.shape), np.uint8), a_grid)
    write_image(volume, tmp_path / f"image{suffix}")
    assert np.array_equal(read_image(tmp_path / f"image{suffix}").array, volume.array)


@pytest.mark.parametrize("suffix", FLAT)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_flat_image_comes_back_as_one_slice(tmp_path, suffix, channels):
    volume = Volume(noise((channels, 1, 30, 40), np.uint8), PLANAR)
    write_image(volume, tmp_path / f"image{suffix}")
    again = read_image(tmp_path / f"image{suffix}")
    assert again.grid.planar
    assert again.grid.same_as(PLANAR)
    assert np.array_equal(again.array, volume.array)


@pytest.mark.parametrize("suffix", [*FLAT, ".nii.gz", ".nrrd", ".seg.nrrd"])
def test_a_flat_mask_comes_back_in_every_format(tmp_path, suffix):
    labels = LabelMap(noise((1, 30, 40), np.uint8), PLANAR)
    write_labels(labels, tmp_path / f"mask{suffix}")
    again = read_labels(tmp_path / f"mask{suffix}")
    assert again.grid.same_as(PLANAR)
    assert np.array_equal(again.array, labels.array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_flat_image_with_spacing_and_direction_keeps_them(tmp_path, suffix):
    grid = Grid((1, 9, 7), (1, 0.5, 0.25), ((0, 0, 1), (-0.6, 0.8, 0), (0.8, 0.6, 0)), (3.0, -4.0, 0), planar=True)
    write_image(Volume(noise(grid.shape), grid), tmp_path / f"image{suffix}")
    again = read_image(tmp_path / f"image{suffix}").grid
    assert again.planar
    assert again.same_as(grid)


def test_a_jpeg_has_three_channels_and_opacity_is_left_out(tmp_path):
    array = noise((9, 8, 4), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "image.png"))
    assert np.array_equal(read_image(tmp_path / "image.png").array[:, 0], np.moveaxis(array[..., :3], -1, 0))
    sitk.WriteImage(sitk.GetImageFromArray(array[..., :3], isVector=True), str(tmp_path / "image.jpg"))
    assert read_image(tmp_path / "image.jpg").array.shape == (3, 1, 9, 8)


def test_a_slice_of_a_volume_stays_at_its_place_in_the_patient(tmp_path):
    grid = Grid((1, 5, 6), (7.0, 1.0, 1.0), ((0, 1, 0), (0, 0, -1), (1, 0, 0)), (1.0, 2.0, 3.0))
    for suffix in VOLUMES:
        write_image(Volume(noise(grid.shape), grid), tmp_path / f"slice{suffix}")
        again = read_image(tmp_path / f"slice{suffix}").grid
        assert again.same_as(grid)
        assert again.spacing == pytest.approx(grid.spacing)
        assert not again.planar


# -- masks


def _written(file, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
    return file


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint32])
def test_whole_numbers_of_any_type_are_a_mask(tmp_path, dtype):
    array = (noise((3, 4, 5), np.uint8) % 100).astype(dtype)
    labels = read_labels(_written(tmp_path / "mask.nrrd", array))
    assert labels.array.dtype == np.uint8
    assert np.array_equal(labels.array, array)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 1.5], "fractions"),
        ([0, float("nan")], "fractions"),
        ([-1, 2], "from -1 to 2"),
        ([0, 70000], "from 0 to 70000"),
        ([0, float("inf")], "from 0 to inf"),
        ([0, 1j], "complex"),
    ],
)
def test_anything_else_is_no_mask(tmp_path, values, said):
    array = np.array(values, np.complex64 if "complex" in said else np.float32).reshape(1, 1, 2).repeat(3, 0)
    with pytest.raises(BadInput, match=said):
        read_labels(_written(tmp_path / "mask.nrrd", array))


def test_a_color_picture_is_no_mask(tmp_path):
    write_image(Volume(noise((3, 1, 30, 40), np.uint8), PLANAR), tmp_path / "image.png")
    with pytest.raises(BadInput, match="3 values per voxel"):
        read_labels(tmp_path / "image.png")


def test_numbers_that_no_mask_can_hold_are_not_written(tmp_path):
    with pytest.raises(BadInput, match="70000"):
        write_labels(LabelMap(np.full((1, 2, 3), 70000, np.uint32), Grid((1, 2, 3))), tmp_path / "mask.nrrd")


# -- what cannot be read


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("suffix", VOLUMES)
def test_a_volume_cut_short_is_refused_not_filled_with_zeros(tmp_path, suffix, part):
    file = tmp_path / f"image{suffix}"
    write_image(Volume(noise((20, 30, 40)), Grid((20, 30, 40))), file)
    voxels = next((f for f in tmp_path.iterdir() if f != file), file)
    voxels.write_bytes(voxels.read_bytes()[: int(voxels.stat().st_size * part)])
    with pytest.raises(BadInput, match=r"cut short|damaged"):
        read_image(file)
    with pytest.raises(BadInput, match=r"cut short|damaged"):
        read_labels(file)


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.97])
@pytest.mark.parametrize("suffix", [*FLAT, ".jpg"])
def test_a_picture_cut_short_is_refused(tmp_path, suffix, part):
    file = tmp_path / f"image{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(noise((60, 70, 3), np.uint8), isVector=True), str(file))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    with pytest.raises(BadInput, match=r"cut short|damaged"):
        read_image(file)


def test_a_compressed_file_with_one_changed_bit_is_refused(tmp_path):
    file = tmp_path / "image.nii.gz"
    write_image(Volume(noise((20, 30, 40)), Grid((20, 30, 40))), file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        read_image(file)


def test_a_nifti_file_whose_name_claims_compression_is_read_all_the_same(tmp_path):
    volume = Volume(noise((4, 5, 6)), Grid((4, 5, 6)))
    write_image(volume, tmp_path / "image.nii")
    shutil.move(tmp_path / "image.nii", tmp_path / "image.nii.gz")
    assert np.array_equal(read_image(tmp_path / "image.nii.gz").array, volume.array)


def test_what_is_no_image_is_told_by_its_name(tmp_path):
    for name in ("notes.txt", "image.nrrd", "image.nii.gz", "image.png", "image.dcm"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(BadInput, match=name):
            read_image(tmp_path / name)
    with pytest.raises(BadInput, match=r"There is no file .*nowhere\.nrrd"):
        read_image(tmp_path / "nowhere.nrrd")
    with pytest.raises(BadInput, match="is a folder"):
        read_labels(tmp_path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_images_over_time_are_refused_but_a_single_frame_is_read(tmp_path, suffix):
    frame = sitk.GetImageFromArray(noise((3, 4, 5)))
    sitk.WriteImage(sitk.JoinSeries([frame] * 6), str(tmp_path / f"cine{suffix}"))
    with pytest.raises(BadInput, match="6 images over time"):
        read_image(tmp_path / f"cine{suffix}")
    sitk.WriteImage(sitk.JoinSeries([frame]), str(tmp_path / f"one{suffix}"))
    assert read_image(tmp_path / f"one{suffix}").array.shape == (1, 3, 4, 5)


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(BadInput, match="magnitude"):
        read_image(_written(tmp_path / "image.nii.gz", np.ones((2, 3, 4), np.complex64)))


def test_sheared_axes_are_refused(tmp_path):
    file = tmp_path / "sheared.nii"
    write_image(Volume(noise((4, 5, 6)), Grid((4, 5, 6))), file)
    header = bytearray(file.read_bytes())
    header[252:256] = np.array([0, 2], "<i2").tobytes()  # the sform alone counts
    header[280:328] = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "<f4").tobytes()
    file.write_bytes(header)
    with pytest.raises(BadInput, match="not perpendicular"):
        read_image(file)


# -- what cannot be written


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "said"),
    [
        ("mask.png", (2, 3, 4), np.uint8, "one slice, not 2"),
        ("mask.bmp", (1, 3, 4), np.uint16, "does not hold uint16"),
        ("mask.jpg", (1, 3, 4), np.uint8, "lossless"),
        ("mask.xyz", (1, 3, 4), np.uint8, "lossless"),
        ("mask", (1, 3, 4), np.uint8, "lossless"),
    ],
)
def test_a_format_that_cannot_hold_a_mask_is_refused(tmp_path, name, shape, dtype, said):
    with pytest.raises(BadInput, match=said):
        write_labels(LabelMap(np.full(shape, np.iinfo(dtype).max, dtype), Grid(shape)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_fractions_do_not_go_into_a_picture(tmp_path):
    with pytest.raises(BadInput, match="does not hold float32"):
        write_image(Volume(noise((1, 30, 40)), PLANAR), tmp_path / "image.png")


def test_folders_are_made_and_nothing_but_the_file_is_left(tmp_path):
    labels = LabelMap(noise((3, 4, 5), np.uint8), Grid((3, 4, 5)))
    write_labels(labels, tmp_path / "a" / "b" / "mask.seg.nrrd")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["mask.seg.nrrd"]
    write_labels(labels, tmp_path / "c" / "mask.mhd")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["mask.mhd", "mask.zraw"]


def test_a_place_that_is_taken_is_told(tmp_path):
    (tmp_path / "mask.nrrd").mkdir()
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "mask.nrrd", tmp_path / "file" / "mask.nrrd"):
        with pytest.raises(BadInput, match="could not be written"):
            write_labels(LabelMap(np.zeros((1, 2, 3), np.uint8), Grid((1, 2, 3))), place)


@pytest.mark.parametrize("suffix", [*VOLUMES, ".seg.nrrd", *FLAT])
def test_on_a_full_disk_the_old_file_stays_and_nothing_half_written(tmp_path, suffix):
    flat = suffix in FLAT
    small, large = (Grid((1, n, n) if flat else (n, n, n), planar=flat) for n in (4, 600 if flat else 80))
    with a_small_disk(tmp_path / "disk", kilobytes=100) as disk:
        file = disk / f"mask{suffix}"
        write_labels(LabelMap(noise(small.shape, np.uint8), small), file)
        before = sorted(disk.iterdir())
        with pytest.raises(BadInput, match="could not be written"):
            write_labels(LabelMap(noise(large.shape, np.uint8), large), file)
        assert sorted(disk.iterdir()) == before
        assert np.array_equal(read_labels(file).array, noise(small.shape, np.uint8))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_where_a_file_cannot_grow_further_the_old_one_stays(tmp_path, suffix):
    small, large = Grid((4, 4, 4)), Grid((80, 80, 80))
    file = tmp_path / f"mask{suffix}"
    write_labels(LabelMap(noise(small.shape, np.uint8), small), file)
    with no_file_larger_than(kilobytes=64), pytest.raises(BadInput, match="could not be written"):
        write_labels(LabelMap(noise(large.shape, np.uint8), large), file)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    assert read_labels(file).grid == small


# -- names


def test_names_of_cases_and_files(tmp_path):
    for name in ("b.nii.gz", "a.seg.nrrd", "C.PNG", "notes.txt", ".hidden.nii", "d.tar.gz", "v1.2.mha"):
        (tmp_path / name).touch()
    (tmp_path / "folder.nrrd").mkdir()
    assert [p.name for p in image_files(tmp_path)] == ["C.PNG", "a.seg.nrrd", "b.nii.gz", "v1.2.mha"]
    assert [case_name(p) for p in image_files(tmp_path)] == ["C", "a", "b", "v1.2"]
    assert case_name(Path("a/patient 7")) == "patient 7"
    with pytest.raises(BadInput, match="no folder"):
        image_files(tmp_path / "nowhere")


# -- DICOM

N, STEP = 7, 2.5


def a_slice(n):
    """Slice n of an oblique CT series made of a real one; voxels tell their slice."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.PixelData = (dataset.pixel_array // 2 + 100 * n).astype(np.int16).tobytes()
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    dataset.ImageOrientationPatient = [*row, *column]
    dataset.ImagePositionPatient = [float(x) for x in np.array([10.0, -20.0, 30.0]) + n * STEP * np.cross(row, column)]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(n)])
    dataset.SeriesInstanceUID, dataset.SeriesDescription = "1.2.3", "T1"
    dataset.InstanceNumber = N - n
    return dataset


def a_series(folder, edit=lambda n, dataset: None, numbers=range(N)):
    """Write the slices, in another order than they lie in the patient."""
    folder.mkdir(exist_ok=True)
    for place, n in enumerate(sorted(numbers, key=lambda n: (n * 3) % N)):
        dataset = a_slice(n)
        edit(n, dataset)
        dataset.save_as(folder / f"{folder.name}-{place}.dcm")
    return folder


def test_a_series_is_sorted_scaled_and_lies_where_its_headers_say(tmp_path):
    volume = read_image(a_series(tmp_path / "series"))
    first = a_slice(0)
    assert volume.array.shape == (1, N, 128, 128)
    expected = first.pixel_array * float(first.RescaleSlope) + float(first.RescaleIntercept)
    for n in range(N):
        assert np.array_equal(volume.array[0, n], expected + 100 * n)
        assert volume.grid.to_world([n, 0, 0]) == pytest.approx(list(map(float, a_slice(n).ImagePositionPatient)))
    assert volume.grid.direction[2] == pytest.approx((0.8, 0.6, 0.0))
    assert volume.grid.spacing == pytest.approx((STEP, *map(float, first.PixelSpacing)))


def test_high_values_are_bright_whatever_the_photometric_interpretation(tmp_path):
    def invert(n, dataset):
        dataset.PhotometricInterpretation = "MONOCHROME1"

    plain = read_image(a_series(tmp_path / "plain")).array.astype(int)
    turned = read_image(a_series(tmp_path / "turned", invert)).array.astype(int)
    assert np.unique(plain + turned).size == 1
    for n in range(N):  # a single file as well
        one, other = (read_image(tmp_path / kind / f"{kind}-{n}.dcm").array.astype(int) for kind in ("plain", "turned"))
        assert np.unique(one + other).size == 1


def _moved(n, dataset, by):
    dataset.ImagePositionPatient = [a + b for a, b in zip(map(float, dataset.ImagePositionPatient), by, strict=True)]


def _halved(n, dataset):
    if n == 3:
        dataset.PixelData, dataset.Rows = dataset.PixelData[: len(dataset.PixelData) // 2], dataset.Rows // 2


def _turned(n, dataset):
    if n == 3:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def _paired(n, dataset):
    dataset.ImagePositionPatient = a_slice(n // 2).ImagePositionPatient


def _nowhere(n, dataset):
    dataset.ImagePositionPatient = [0, 0, 0]


BAD_SERIES = {
    "missing slice": ({"numbers": [0, 1, 2, 4, 5, 6]}, "not evenly spaced: 2.50 mm apart, but 5.00 mm"),
    "tilted gantry": ({"edit": lambda n, dataset: _moved(n, dataset, (0, 0, 0.3 * n))}, "tilted"),
    "all at one place": ({"edit": _nowhere}, "at one place"),
    "two of each": ({"edit": _paired}, "at one place"),
    "one turned": ({"edit": _turned}, "turned against"),
    "one of another size": ({"edit": _halved}, "differ in size"),
}


@pytest.mark.parametrize("bad", BAD_SERIES.values(), ids=BAD_SERIES.keys())
def test_slices_that_make_no_volume_are_refused(tmp_path, bad):
    arguments, said = bad
    with pytest.raises(BadInput, match=said):
        read_image(a_series(tmp_path / "series", **arguments))


def test_of_several_series_one_is_picked_by_description_or_number(tmp_path):
    for number, name in ((4, "T1"), (5, "T1 post"), (12, "T2")):

        def edit(n, dataset, number=number, name=name):
            dataset.SeriesDescription, dataset.SeriesNumber = name, number
            dataset.SeriesInstanceUID = f"1.2.{number}"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}.{n + 1}"

        a_series(tmp_path / "one", edit, range(number - 1))
        for file in (tmp_path / "one").iterdir():
            file.rename(tmp_path / f"{number}-{file.name}")
        (tmp_path / "one").rmdir()
    with pytest.raises(BadInput, match=r"'T1' \(number 4, 3 files\); 'T1 post' \(number 5, 4 files\)") as caught:
        read_image(tmp_path)
    assert "1.2." not in str(caught.value).replace(str(tmp_path), "")
    for wanted, slices in (("t1", 3), ("T1 post", 4), ("post", 4), ("5", 4), ("T2", 11)):
        assert read_image(tmp_path, series=wanted).grid.shape[0] == slices
    with pytest.raises(BadInput, match="holds 0 series called 'FLAIR'"):
        read_image(tmp_path, series="FLAIR")


def test_a_folder_without_dicom_and_a_damaged_file_are_told(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match="holds no DICOM images"):
        read_image(tmp_path)
    with pytest.raises(BadInput, match=r"MR_truncated\.dcm"):
        read_image(get_testdata_file("MR_truncated.dcm"))


def test_reports_and_plans_are_no_images_and_do_not_hide_the_series_beside_them(tmp_path):
    folder = a_series(tmp_path / "series")
    for name in ("test-SR.dcm", "rtstruct.dcm", "liver_1frame.dcm"):
        shutil.copy(get_testdata_file(name), folder)
    assert read_image(folder).grid.shape[0] == N
    for name in ("test-SR.dcm", "rtstruct.dcm"):
        with pytest.raises(BadInput, match=name):
            read_image(folder / name)
    with pytest.raises(BadInput, match="DICOM segmentation"):
        read_image(folder / "liver_1frame.dcm")


def test_a_radiograph_is_flat_and_a_single_slice_is_not(tmp_path):
    assert read_image(get_testdata_file("examples_rgb_color.dcm")).grid.planar
    single = read_image(a_series(tmp_path / "single", numbers=[3]))
    assert not single.grid.planar
    assert single.grid.origin == pytest.approx(list(map(float, a_slice(3).ImagePositionPatient)))


@pytest.mark.parametrize("name", ["11-T1post-18670", "26401-T1prereg-52906", "11_HCropVolume"])
def test_real_mr_series_lie_where_pydicom_says(shared_data, name):
    folder = shared_data / "dicom_mr_brain_tumor" / name
    volume = read_image(folder)
    slices = [pydicom.dcmread(file) for file in folder.iterdir()]
    assert volume.grid.shape == (len(slices), int(slices[0].Rows), int(slices[0].Columns))
    for dataset in slices:
        k, j, i = volume.grid.to_index(list(map(float, dataset.ImagePositionPatient)))
        assert (j, i) == pytest.approx((0, 0), abs=0.02)
        assert k == pytest.approx(round(k), abs=0.02)
        stored = dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        assert np.array_equal(volume.array[0, round(k)], stored)


def test_a_real_ct_series_is_read_in_hounsfield_units(shared_data):
    volume = read_image(shared_data / "totalsegmentator_samples" / "example_ct_dicom")
    assert volume.array.shape == (1, 20, 512, 512)
    assert volume.array.min() == -1024
    assert volume.grid.spacing == pytest.approx((2.0, 0.9765625, 0.9765625))


def test_a_real_folder_of_mixed_objects_lists_its_images_only(shared_data):
    with pytest.raises(BadInput, match=r"holds 2 series.*'CHEST' \(number 1001, 1 file\)"):
        read_image(shared_data / "dicom_seg_highdicom")


def test_a_flat_mask_of_black_and_white_is_one_structure_and_one_of_many_values_stays(tmp_path):
    inside = np.zeros((1, 20, 30), np.uint8)
    inside[0, 4:9, 5:20] = 1
    sitk.WriteImage(sitk.GetImageFromArray(255 * inside[0]), str(tmp_path / "mask.png"))
    assert np.array_equal(read_labels(tmp_path / "mask.png").array, inside)
    several = inside * 255 + np.roll(inside, 10, axis=2) * (1 - inside) * 7
    sitk.WriteImage(sitk.GetImageFromArray(several[0]), str(tmp_path / "several.png"))
    assert np.array_equal(read_labels(tmp_path / "several.png").array, several)
