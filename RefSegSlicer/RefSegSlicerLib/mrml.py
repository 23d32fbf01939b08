"""The border between MRML and the engine: nodes on one side, Volume, LabelMap and LPS points on the other.

Every function works on the nodes it is given and their scene; there is no application and no Qt here.

A volume may lie under a linear transform. The engine then sees the voxels where they are in the patient, while
segments are written on the volume's own voxels, under the same transform. So no voxel is ever interpolated.
"""

import numpy as np
import slicer
import vtk
from RefSegLib.errors import BadInput
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from RefSegSlicerLib.translation import tr as _

REPRESENTATION = "Binary labelmap"
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def ownGrid(volumeNode) -> Grid:
    """Where the voxels of a volume lie before the transforms above it."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return Grid.from_ijk_to_ras(slicer.util.arrayFromVTKMatrix(matrix), shapeOf(volumeNode))


def worldGrid(volumeNode) -> Grid:
    """Where the voxels of a volume lie in the patient.

    Raises BadInput, saying what to do, if a transform above it bends or shears it.
    """
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    ijkToRas = toWorld(volumeNode) @ slicer.util.arrayFromVTKMatrix(matrix)
    if volumeNode.GetParentTransformNode() is None:
        return Grid.from_ijk_to_ras(ijkToRas, shapeOf(volumeNode))
    try:
        return Grid.from_ijk_to_ras(ijkToRas, shapeOf(volumeNode))
    except BadInput as error:
        text = _(
            "The transform of volume '{name}' shears it, so that its voxels are no longer boxes. "
            "Resample it with 'Resample Scalar Volume' first."
        )
        raise BadInput(text.format(name=volumeNode.GetName())) from error


def toWorld(node) -> np.ndarray:
    """4x4 matrix from a node's own RAS space to the world. Raises BadInput if the transform above it is not linear."""
    matrix = vtk.vtkMatrix4x4()
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.GetMatrixTransformToWorld(matrix):
        text = _(
            "'{name}' lies under the transform '{transform}', which bends it. "
            "Harden the transform first: right-click the node in the Data module, 'Harden transform'."
        )
        raise BadInput(text.format(name=node.GetName(), transform=transform.GetName()))
    return slicer.util.arrayFromVTKMatrix(matrix)


def volumeFromNode(volumeNode) -> Volume:
    """The image of a scalar or vector volume node where it lies in the patient. The voxels are shared, not copied."""
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise BadInput(_("The volume '{name}' holds no voxels.").format(name=volumeNode.GetName()))
    voxels = vtk_to_numpy(image.GetPointData().GetScalars())
    channels = image.GetNumberOfScalarComponents()
    array = voxels.reshape(*shapeOf(volumeNode), channels)
    return Volume(np.moveaxis(array, -1, 0), worldGrid(volumeNode))


def indexFromWorld(point, volumeNode) -> np.ndarray:
    """Voxel index k, j, i (with fractions) of the volume at a point in world RAS, whatever lies above the volume."""
    local = np.linalg.solve(toWorld(volumeNode), [*point, 1.0])[:3]
    return ownGrid(volumeNode).to_index(local * RAS_TO_LPS)


def worldFromIndex(index, volumeNode) -> np.ndarray:
    """World RAS of a voxel index k, j, i; the inverse of indexFromWorld."""
    local = ownGrid(volumeNode).to_world(index) * RAS_TO_LPS
    return (toWorld(volumeNode) @ [*local, 1.0])[:3]


def boxFromRoi(roiNode, volumeNode) -> tuple[int, ...]:
    """The voxels k0, j0, i0, k1, j1, i1 (upper exclusive) whose centers a ROI's box can reach, cut to the volume.

    A turned ROI gives the smallest box of voxels around it. Raises BadInput if it misses the volume.
    """
    size = np.array(roiNode.GetSize())
    if roiNode.GetNumberOfDefinedControlPoints() < 1 or not size.all():
        text = _("The region '{name}' has not been placed yet. Draw it in a slice view.")
        raise BadInput(text.format(name=roiNode.GetName()))
    objectToWorld = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToWorldMatrix())
    corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * size / 2
    world = corners @ objectToWorld[:3, :3].T + objectToWorld[:3, 3]
    index = np.array([indexFromWorld(point, volumeNode) for point in world])
    tolerance = 1e-6
    lower = np.maximum(np.ceil(index.min(axis=0) - tolerance), 0).astype(int)
    upper = np.minimum(np.floor(index.max(axis=0) + tolerance) + 1, shapeOf(volumeNode)).astype(int)
    if (lower >= upper).any():
        text = _("The region '{region}' does not reach the volume '{volume}'.")
        raise BadInput(text.format(region=roiNode.GetName(), volume=volumeNode.GetName()))
    return (*lower.tolist(), *upper.tolist())


def prepareSegmentation(segmentationNode, volumeNode) -> None:
    """Give a segmentation the volume's voxel grid as its own, and its place under the same transform."""
    if segmentationNode.GetDisplayNode() is None:
        segmentationNode.CreateDefaultDisplayNodes()
    segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)


def putBeside(node, volumeNode) -> None:
    """Move a node into the same patient, study or folder of the subject hierarchy as a volume."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    if item:
        hierarchy.CreateItem(hierarchy.GetItemParent(item), node)  # moves the item if there is one


def imageData(array):
    """A vtkImageData of voxels (k, j, i), copied, for a volume node. In any thread: for 512 cubed it takes a second."""
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(_scalars(array))
    return image


def _scalars(array):
    voxels = numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True)
    voxels.SetName("ImageScalars")
    return voxels


def orientedImage(array, grid: Grid, lower=(0, 0, 0)):
    """A vtkOrientedImageData of voxels (k, j, i) that start at index `lower` of a grid."""
    lower = np.asarray(lower, int)
    image = slicer.vtkOrientedImageData()
    extent = [int(v) for n in (2, 1, 0) for v in (lower[n], lower[n] + array.shape[n] - 1)]
    image.SetExtent(extent)
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(grid.ijk_to_ras()))
    image.GetPointData().SetScalars(_scalars(array))
    return image


def boundingBox(array) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper (exclusive) index of the box of voxels that are not zero; one voxel if all are."""
    if not array.any():
        return np.zeros(3, int), np.ones(3, int)
    ranges = [np.flatnonzero(array.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([r[0] for r in ranges]), np.array([r[-1] + 1 for r in ranges])


def segmentArray(segmentationNode, segmentId, volumeNode) -> np.ndarray:
    """The voxels (k, j, i; bool) of a segment on the volume's own grid."""
    found = slicer.vtkOrientedImageData()
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    layer = segment.GetRepresentation(REPRESENTATION)
    shape = shapeOf(volumeNode)
    if layer is None or layer.GetPointData().GetScalars() is None:
        return np.zeros(shape, bool)
    reference = slicer.vtkOrientedImageData()
    reference.SetExtent(0, shape[2] - 1, 0, shape[1] - 1, 0, shape[0] - 1)
    reference.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ownGrid(volumeNode).ijk_to_ras()))
    if not segmentationNode.GetBinaryLabelmapRepresentation(segmentId, found):
        return np.zeros(shape, bool)
    if not slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(found, reference, found):
        text = _("The segment '{segment}' cannot be read on the voxels of '{volume}'.")
        raise BadInput(text.format(segment=segment.GetName(), volume=volumeNode.GetName()))
    return vtk_to_numpy(found.GetPointData().GetScalars()).reshape(shape) != 0


def labelsFromSegmentation(segmentationNode, segmentIds, volumeNode) -> LabelMap:
    """Segments as one label map, 1, 2, 3, ... in the order of `segmentIds`, where the volume lies in the patient.

    Where segments overlap, the later one stands.
    """
    array = np.zeros(shapeOf(volumeNode), np.uint16)
    for value, identifier in enumerate(segmentIds, start=1):
        array[segmentArray(segmentationNode, identifier, volumeNode)] = value
    return LabelMap(array, worldGrid(volumeNode))


def shapeOf(volumeNode) -> tuple[int, int, int]:
    """Voxels along k, j, i. Raises BadInput if the volume has none."""
    image = volumeNode.GetImageData()
    if image is None:
        raise BadInput(_("The volume '{name}' holds no voxels.").format(name=volumeNode.GetName()))
    return image.GetDimensions()[::-1]
