"""Peak memory of segmenting a whole scan of 512 x 512 x 600: python Testing/benchmarks/bench_memory.py

Random voxels, a light untrained network with three outputs, percentile normalization, a flipped grid: what counts here
is the size of arrays, not the labels.
"""

import resource
import time

import numpy as np
from RefSegLib.inference.predict import segment
from RefSegLib.inference.segmenter import ready_segmenter
from RefSegLib.models.networks import build_segmenter
from RefSegLib.models.spec import Label, Network, SegmenterSpec
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import Volume

SHAPE = (600, 512, 512)
FLIPPED = Grid(SHAPE, (1.0, 0.8, 0.8), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)))


def main() -> None:
    spec = SegmenterSpec(
        name="light",
        channels=("CT",),
        labels=tuple(Label(value=value, name=f"label {value}", color=(1, 0, 0)) for value in (1, 2)),
        spacing=(0, 0, 0),
        patch=(96, 128, 128),
        network=Network(name="unet", arguments={"filters": [4, 8, 16]}),
    )
    voxels = np.random.default_rng(0).integers(-1000, 1000, SHAPE, dtype=np.int16)
    segmenter = ready_segmenter(spec, build_segmenter(spec), "cpu")
    started = time.perf_counter()
    segment(Volume(voxels, FLIPPED), segmenter)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.perf_counter() - started:.0f} s, peak {peak:.0f} MB with the image")


if __name__ == "__main__":
    main()
