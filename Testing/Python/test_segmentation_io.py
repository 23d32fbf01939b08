"""Slicer reads the segmentations written here, voxel for voxel with names, colors and codes; and the other way round.

Slicer runs in a process of its own: its libraries and others loaded by tests do not always get along at exit.
"""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import SimpleITK as sitk
from RefSegLib.errors import BadInput
from RefSegLib.models.spec import Code, Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import read_labels, write_labels
from RefSegLib.volume.segmentation_file import terminology
from RefSegLib.volume.volume import LabelMap
from scipy.spatial.transform import Rotation

NAMES = (
    Label(
        value=1,
        name="Hippocampus, Größe | 1",
        color=(0.1, 0.2, 0.3),
        type=Code(value="5366008", meaning="Hippocampus"),
        modifier=Code(value="7771000", meaning="Left"),
    ),
    Label(value=2, name="empty", color=(1, 0, 0)),
    Label(value=300, name="large number", color=(0, 0.5, 1), type=Code(scheme="99X", value="T~1", meaning="a^b|c")),
)

IN_SLICER = r"""
import json, sys
from pathlib import Path
import numpy as np
import slicer, vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

scene = slicer.vtkMRMLScene()

def stored(file, node, action):
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(file))
    assert getattr(storage, action)(node), file

def voxels(image):
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape), np.array([i0, j0, k0])

def read(file):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    stored(file, node, "ReadData")
    found = []
    for n in range(node.GetSegmentation().GetNumberOfSegments()):
        segment, tag = node.GetSegmentation().GetNthSegment(n), vtk.reference("")
        segment.GetTag("TerminologyEntry", tag)
        image = segment.GetRepresentation("Binary labelmap")
        array, first = voxels(image)
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        matrix = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
        ijk = np.argwhere(array == segment.GetLabelValue())[:, ::-1] + first
        ras = ijk @ matrix[:3, :3].T + matrix[:3, 3]
        found.append(dict(id=node.GetSegmentation().GetNthSegmentID(n), name=segment.GetName(),
            color=segment.GetColor(), value=segment.GetLabelValue(), terminology=str(tag), ras=ras.tolist()))
    stored(file.with_name("again-" + file.name), node, "WriteData")
    return found

def layered(folder, name, boxes):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    for number, box in enumerate(boxes):
        array = np.zeros((6, 7, 8), np.uint8)
        array[tuple(slice(*side) for side in box)] = 1
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(8, 7, 6)
        image.SetSpacing(1.0, 2.0, 3.0)
        image.SetOrigin(4.0, 5.0, 6.0)
        image.SetDirections([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
        image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=1))
        node.AddSegmentFromBinaryLabelmapRepresentation(image, f"part {number}", [1.0, 0.0, 0.0])
    stored(folder / name, node, "WriteData")

folder = Path(sys.argv[1])
found = {file.name: read(file) for file in sorted(folder.glob("*.seg.nrrd"))}
layered(folder, "apart.seg.nrrd", [[(0, 2), (0, 7), (0, 8)], [(3, 6), (0, 4), (1, 8)]])
layered(folder, "overlapping.seg.nrrd", [[(0, 4), (0, 7), (0, 8)], [(3, 6), (0, 4), (1, 8)]])
(folder / "found.json").write_text(json.dumps(found))
"""


def _oblique(seed, mirror=1):
    return Rotation.random(random_state=seed).as_matrix() * [[1], [1], [mirror]]


GRIDS = {
    "flipped": Grid((12, 14, 16), (1.5, 1.0, 1.0), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), (10.0, 20.0, -5.0)),
    "sagittal thick": Grid((10, 16, 15), (6.0, 0.8, 0.7), ((1, 0, 0), (0, 0, -1), (0, 1, 0)), (-7.0, 3.0, 980.0)),
    "oblique": Grid((11, 13, 15), (2.5, 0.9, 1.1), _oblique(3), (-12.0, 34.0, 56.0)),
    "left-handed": Grid((11, 13, 15), (2.0, 0.9, 1.1), _oblique(4, -1), (1.0, -40.0, 6.0)),
    "one slice": Grid((1, 13, 15), (2.0, 0.9, 1.1), _oblique(5), (1.0, -40.0, 6.0)),
}


def a_label_map(grid):
    """Blobs of two values, none at all of value 2, and at a corner one voxel of value 7, which has no name."""
    array = np.zeros(grid.shape, np.uint16)
    array[grid.shape[0] // 3 :, 1:5, 2:-2] = 1
    array[: grid.shape[0] // 2 + 1, 6:, :5] = 300
    array[0, -1, -1] = 7
    return LabelMap(array, grid)


@pytest.fixture(scope="module")
def in_slicer(tmp_path_factory):
    """A folder where Slicer has read, and saved again, what was written here; and what it has found in it."""
    if find_spec("slicer") is None:
        pytest.skip("slicer-core is not installed here")
    folder = tmp_path_factory.mktemp("slicer")
    for name, grid in GRIDS.items():
        write_labels(a_label_map(grid), folder / f"{name}.seg.nrrd", NAMES)
    run = subprocess.run(
        [sys.executable, "-c", IN_SLICER, str(folder)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (folder / "found.json").exists(), run.stderr
    return folder, json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", GRIDS)
def test_slicer_finds_every_segment_and_every_voxel_where_it_was(in_slicer, name):
    labels = a_label_map(GRIDS[name])
    segments = in_slicer[1][f"{name}.seg.nrrd"]
    assert [s["value"] for s in segments] == [1, 2, 7, 300]
    for segment in segments:
        expected = labels.grid.to_world(np.argwhere(labels.array == segment["value"])) * [-1, -1, 1]
        found = np.array(segment["ras"]).reshape(-1, 3)
        assert len(found) == len(expected)
        assert {tuple(p) for p in np.round(found, 3) + 0.0} == {tuple(p) for p in np.round(expected, 3) + 0.0}


def test_slicer_finds_names_colors_and_codes(in_slicer):
    segments = {s["value"]: s for s in in_slicer[1]["oblique.seg.nrrd"]}
    for label in NAMES:
        found = segments[label.value]
        assert (found["name"], found["id"]) == (label.name, f"Segment_{label.value}")
        assert found["color"] == pytest.approx(label.color)
        assert found["terminology"] == terminology(label)
    assert segments[7]["name"] == "Segment_7"
    context, category, kind, modifier, *_ = segments[1]["terminology"].split("~")
    assert context == "Segmentation category and type - DICOM master list"
    assert category == "SCT^123037004^Anatomical Structure"
    assert (kind, modifier) == ("SCT^5366008^Hippocampus", "SCT^7771000^Left")


def test_codes_cannot_break_the_notation_they_are_written_in():
    parts = terminology(NAMES[2]).split("~")
    assert len(parts) == 7
    assert parts[2] == "99X^T 1^a b c"


@pytest.mark.parametrize("name", GRIDS)
def test_what_slicer_saves_again_is_what_was_written(in_slicer, name):
    again, labels = read_labels(in_slicer[0] / f"again-{name}.seg.nrrd"), a_label_map(GRIDS[name])
    assert again.grid.same_as(labels.grid)
    assert np.array_equal(again.array, labels.array)


def test_what_slicer_itself_has_made_is_read(in_slicer):
    labels = read_labels(in_slicer[0] / "apart.seg.nrrd")
    assert [int((labels.array == value).sum()) for value in (1, 2)] == [2 * 7 * 8, 3 * 4 * 7]
    assert labels.grid.spacing == pytest.approx((3.0, 2.0, 1.0))
    corner = labels.grid.to_world(np.argwhere(labels.array == 1)[0])  # i runs to anterior there, j to the left
    assert corner * [-1, -1, 1] == pytest.approx([4.0, 5.0, 6.0])


def test_overlapping_segments_are_refused_by_name(in_slicer):
    with pytest.raises(BadInput, match="'part 1' lies over another"):
        read_labels(in_slicer[0] / "overlapping.seg.nrrd")


@pytest.mark.parametrize("name", GRIDS)
def test_what_was_written_is_read_back(tmp_path, name):
    labels = a_label_map(GRIDS[name])
    write_labels(labels, tmp_path / "mask.seg.nrrd", NAMES)
    again = read_labels(tmp_path / "mask.seg.nrrd")
    assert again.grid.same_as(labels.grid, tolerance=1e-6)
    assert np.array_equal(again.array, labels.array)


def test_an_empty_mask_keeps_its_segments(tmp_path):
    write_labels(LabelMap(np.zeros((3, 4, 5), np.uint8), Grid((3, 4, 5))), tmp_path / "mask.seg.nrrd", NAMES)
    header = sitk.ReadImage(str(tmp_path / "mask.seg.nrrd"))
    assert [header.GetMetaData(f"Segment{n}_Name") for n in range(3)] == [label.name for label in NAMES]
    assert header.GetMetaData("Segment0_Extent") == "0 -1 0 -1 0 -1"


def test_extents_are_tight(tmp_path):
    array = np.zeros((5, 6, 7), np.uint8)
    array[1:3, 2:6, 4:5] = 1
    write_labels(LabelMap(array, Grid((5, 6, 7))), tmp_path / "mask.seg.nrrd", NAMES[:1])
    assert sitk.ReadImage(str(tmp_path / "mask.seg.nrrd")).GetMetaData("Segment0_Extent") == "4 4 2 5 1 2"


def _two_layers(file, values=(1, 1), **metadata):
    """Two segments, each in a layer of its own, side by side."""
    array = np.zeros((3, 2, 4, 2), np.uint8)
    array[..., :2, 0], array[..., 3:, 1] = values
    layers = sitk.GetImageFromArray(array, isVector=True)
    fields = {f"Segment{n}_{key}": v for n in (0, 1) for key, v in (("LabelValue", str(values[n])), ("Layer", str(n)))}
    for key, value in (fields | metadata).items():
        layers.SetMetaData(key, value)
    sitk.WriteImage(layers, str(file))
    return file


@pytest.mark.parametrize(("written", "read"), [((1, 1), (1, 2)), ((5, 3), (5, 3)), ((2, 1), (2, 1))])
def test_layers_are_merged_keeping_values_that_are_all_different(tmp_path, written, read):
    labels = read_labels(_two_layers(tmp_path / "mask.seg.nrrd", written))
    assert labels.array[0, 0].tolist() == [read[0], read[0], 0, read[1]]
    assert labels.array.shape == labels.grid.shape == (3, 2, 4)


@pytest.mark.parametrize("damage", [{"Segment1_Layer": "5"}, {"Segment1_Layer": "x"}, {"Segment1_LabelValue": ""}])
def test_a_damaged_header_is_told(tmp_path, damage):
    with pytest.raises(BadInput, match="damaged header"):
        read_labels(_two_layers(tmp_path / "bad.seg.nrrd", **damage))


def test_two_values_per_voxel_are_no_mask(tmp_path):
    file = tmp_path / "vector.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.uint8), isVector=True), str(file))
    with pytest.raises(BadInput, match="2 values per voxel"):
        read_labels(file)


@pytest.mark.parametrize("name", ["liver_seg.nrrd", "heart_seg.nrrd", "spine_seg_label5.nrrd"])
def test_real_segmentations_are_read(shared_data, name):
    labels = read_labels(shared_data / "dicom_seg_dcmqi" / name)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "dicom_seg_dcmqi" / name)))
    assert labels.array.any()
    assert np.array_equal(labels.array, expected)
