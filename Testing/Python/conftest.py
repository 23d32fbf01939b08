"""What several tests share. Fixtures read like sentences."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from RefSegLib.volume.grid import Grid

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; the test is skipped where there is none."""
    folder = Path(os.environ.get("REFSEG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not here ({folder}); set REFSEG_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def hurried_learners():
    """Learners that this process has started, at full priority, where the system lets us (root): beside other tests
    that keep every core busy, what a learner does in seconds took more than two minutes."""
    over = threading.Event()

    def hurry() -> None:
        while not over.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if process.nice() > 0 and any("learner" in word for word in process.cmdline()):
                        process.nice(0)

    watching = threading.Thread(target=hurry, name="hurry", daemon=True)
    watching.start()
    yield
    over.set()
    watching.join()


def rotation(seed: int) -> np.ndarray:
    """A rotation matrix, the same for the same seed."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


GRIDS = {
    "plain": Grid((12, 14, 16)),
    "anisotropic": Grid((7, 20, 18), (5.0, 0.8, 0.7), origin=(-30.0, 12.0, 900.0)),
    "flipped": Grid((12, 14, 16), (1.5, 1.0, 1.0), ((0, 0, -1), (0, -1, 0), (-1, 0, 0)), (10.0, 20.0, -5.0)),
    "sagittal": Grid((10, 16, 15), (3.0, 1.0, 1.0), ((1, 0, 0), (0, 0, -1), (0, 1, 0)), (-7.0, 3.0, 80.0)),
    "oblique": Grid((11, 13, 15), (2.5, 0.9, 1.1), rotation(3), (-12.0, 34.0, 56.0)),
    "left-handed oblique": Grid((11, 13, 15), (2.0, 0.9, 1.1), rotation(4) * [[1], [1], [-1]], (1.0, -40.0, 6.0)),
}


@pytest.fixture(params=GRIDS.values(), ids=GRIDS.keys())
def a_grid(request) -> Grid:
    """Every kind of grid that hospitals produce."""
    return request.param
