"""The images of the tutorials, in Slicer's module Sample Data. Each is at an address that names its hash."""

from pathlib import Path

CATEGORY = "RefSeg"
ADDRESS = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
# Slicer's own MRHead: T1-weighted, whole head; given by the person in it, to be used without restrictions.
HEAD = "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"
PICTURE = Path(__file__).parents[1] / "Resources" / "Icons" / "RefSegSlicer.png"


def register():
    """Offer the images. What is registered already is not registered again: Slicer compares."""
    try:
        import SampleData
    except ModuleNotFoundError:  # a Slicer that was built without it
        return

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="RefSegHead",
        uris=ADDRESS + HEAD,
        fileNames="RefSegHead.nrrd",
        nodeNames="RefSegHead",
        checksums=f"SHA256:{HEAD}",
        thumbnailFileName=str(PICTURE),
    )
