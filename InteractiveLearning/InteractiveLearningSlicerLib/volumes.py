"""An image of the engine as a volume node, voxel for voxel and exactly where it lies."""

import numpy as np
import slicer
from RefSegLib.errors import BadInput
from RefSegSlicerLib import mrml
from RefSegSlicerLib.translation import tr as _

# Of voxels that decide how bright the image is shown, and how many of them are looked at.
DARKEST, BRIGHTEST = 0.1, 99.9
LOOKED_AT = 2**20
# What MRML cannot hold, or programs that read saved scenes cannot.
CONVERTED = {"bool": "uint8", "float16": "float32", "int64": "int32", "uint64": "uint32"}


class Image:
    """The voxels of a volume ready for its node: made in any thread, for it copies them all.

    data: vtkImageData; window: (darkest, brightest) value to show. Raises BadInput, saying what to do, if it
    is flat or has several channels.
    """

    def __init__(self, volume):
        if volume.channels != 1:
            raise BadInput(
                _(
                    "This is a color image, or one of several channels, and only one channel can be annotated. Save "
                    "that one as an image of its own."
                )
            )
        if volume.grid.planar:
            raise BadInput(_("This image is flat, and only volumes can be annotated. Choose a series of slices."))
        array = _storable(volume.array[0])
        self.grid = volume.grid
        self.data = mrml.imageData(array)
        self.window = windowOf(array)


def windowOf(array):
    """(darkest, brightest) value to show of voxels: nearly all of them. Takes 30 ms at most."""
    some = array.ravel()[:: max(1, array.size // LOOKED_AT)].astype(np.float64)
    some = some[np.isfinite(some)]
    low, high = np.percentile(some, (DARKEST, BRIGHTEST)).tolist() if some.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def volumeToNode(image, scene, name):
    """Add a scalar volume node with the voxels of an Image to a scene. The voxels are shared, not copied."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.grid.ijk_to_ras()))
    # Shown before it has voxels: else Slicer goes through all of them to find a window by itself.
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*image.window)
    node.SetAndObserveImageData(image.data)
    return node


def _storable(array):
    """The same voxels in a type that nodes and files of volumes hold; exact, but for whole numbers beyond 32 bits."""
    name = CONVERTED.get(array.dtype.name)
    if name is None:
        return array
    kind = np.dtype(name)
    if kind.kind in "iu" and array.dtype.kind in "iu":
        limits = np.iinfo(kind)
        if array.min() < limits.min or array.max() > limits.max:
            kind = np.dtype("float64")
    return array.astype(kind)
