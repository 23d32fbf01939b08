"""Part "speed" of bench_interaction: seconds and memory, each in a process of its own, beside others in the same run.

    python Testing/benchmarks/interaction_speed.py proxy | clicks | memory

proxy: a 100-cubed part of the MNI152 head around thalami, ventricles and brain-stem (of the Harvard-Oxford atlas),
five slices outlined. clicks: a session on a 256-cubed head that starts, as in Slicer, from the labels of the shipped
model; every click with its line in the log on the disk. memory: the same prompts again, without the robot.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from interaction_data import OUT, ends, places
from interaction_peers import FOREIGN, Problem, growcut
from InteractiveLearningLib.prompts import Prompt
from InteractiveLearningLib.session import Session
from RefSegLib.models.spec import Label
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.resample import resample_volume
from RefSegLib.volume.volume import LabelMap, Volume

REPEATS = 5
CLICKS, SLICES = 48, 6
AROUND = 12
SIZE, HEAD = 100, 256
DEEP = (96, 97, 101, 105, 106)  # frames of the atlas
NAMES = ("left anterior", "left posterior", "right anterior", "right posterior")


def tasks(split: str, limit: int | None) -> list[dict]:
    """All, whatever is asked for: they use no patients."""
    return [{"part": "speed", "split": split, "of": "ours", "what": what} for what in ("proxy", "clicks", "memory")]


def run(task: dict) -> list[dict]:
    """What a process of its own measured."""
    if task["what"] == "clicks" and not (OUT / "head.npz").exists():
        _alone("head")
    return [_alone(task["what"])]


def _alone(what: str) -> dict:
    done = subprocess.run([sys.executable, __file__, what], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def proxy() -> dict:
    """Seconds of ours (first, one more slice, one more with clean-up) and of others."""
    from InteractiveLearningLib.propagation import FlowCache, propagate

    image, truth = _deep()
    low, high = ends(truth, 0)
    chosen = places(low, high, 5)
    outlined = {n: truth[n] for n in chosen}
    more = outlined | {(chosen[2] + chosen[3]) // 2: truth[(chosen[2] + chosen[3]) // 2]}

    def one(slices: dict, cache: FlowCache, method: str | None = None) -> Callable[[], object]:
        return lambda: propagate(image, 0, slices, limits=(low, high), cache=cache, method=method)

    ways = {"one more slice": "intensity", "one more slice, clean-up": "smooth", "one more slice, chosen anew": None}
    times: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for name, method in ways.items():
            cache = FlowCache()
            times.setdefault("first", []).append(_seconds(one(outlined, cache)))
            times.setdefault(name, []).append(_seconds(one(more, cache, method)))
        problem = Problem(image, 0, more, (low, high), (1.0, 1.0, 1.0)).cropped()
        times.setdefault("Grow from seeds", []).append(_seconds(lambda problem=problem: growcut(problem)))
        FOREIGN("fill", problem)
        times.setdefault("Fill between slices", []).append(FOREIGN.seconds)
    FOREIGN.close()
    return {"seconds": times, "shape": image.shape, "structure": np.ptp(np.nonzero(truth), axis=1).tolist()}


def clicks() -> dict:
    """Seconds of every click and outline on the whole head."""
    from InteractiveLearningLib.annotator import Annotator
    from InteractiveLearningLib.prompts import to_dict

    with np.load(OUT / "head.npz") as file:
        truth = LabelMap(file["truth"], _head_grid())
    robot, said = Annotator(truth, imprecise=True), []
    # Clicks are looked for around the structures only: in a whole head that takes a robot ten seconds.
    lower, upper = (np.array([side(at) for at in np.nonzero(truth.array)]) for side in (np.min, np.max))
    lower, upper = lower - AROUND, upper + AROUND + 1
    near = tuple(map(slice, lower, upper))
    clicker = Annotator(LabelMap(truth.array[near], truth.grid.crop(lower, upper)), imprecise=True)
    taken: dict[str, list[float]] = {"click": [], "slice": []}
    with tempfile.TemporaryDirectory() as place, _begun(place) as session:

        def say(prompt: Prompt, kind: str) -> None:
            taken[kind].append(_seconds(lambda: session.apply(prompt)))
            said.append(to_dict(prompt))

        for _ in range(CLICKS):
            say(clicker.click(session.labels().array[near], range(1, 5)), "click")
        for index in places(*ends(truth.array == 1, 1), SLICES):
            say(robot.outline(1, 1, index), "slice")
    (OUT / "head-prompts.json").write_text(json.dumps(said))
    return {"seconds": taken}


def memory() -> dict:
    """Peak memory of a process that does nothing but what was said in `clicks`: the robot needs memory of its own."""
    from InteractiveLearningLib.prompts import from_dict

    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        session = _begun(place)
        begun = time.perf_counter() - start
        with session:
            for said in json.loads((OUT / "head-prompts.json").read_text()):
                session.apply(from_dict(said))
            mask = session.labels().array
        start = time.perf_counter()
        with Session.open(place) as again:
            opened = time.perf_counter() - start
            if not np.array_equal(again.labels().array, mask):
                raise RuntimeError("The session came back with another mask.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": {"beginning the session": [begun], "opening it again": [opened]}, "memory_mb": peak}


def head() -> dict:
    """Make the head and what the shipped model sees in it, once: the model is no part of what is measured."""
    from interaction_sessions import engine
    from InteractiveLearningLib.demo.heads import demo_heads

    template, grid = demo_heads()[0], _head_grid()
    volume = resample_volume(template.volume, grid, outside=0.0)
    image = volume.array.astype(np.int16)
    found = engine("msd_hippocampus").segment(Volume(image, grid), reflect=False)
    left, right = (template.truth(side, grid) for side in ("left", "right"))
    truth = np.where(right > 0, right + 2, left).astype(np.uint16)
    np.savez_compressed(OUT / "head.npz", image=image[0], labels=found.labels.array.astype(np.uint8), truth=truth)
    return {"voxels": int(np.count_nonzero(found.labels.array))}


def _deep() -> tuple[npt.NDArray, npt.NDArray[np.bool_]]:
    from InteractiveLearningLib.demo.heads import ATLAS, TEMPLATES, atlas_folder
    from RefSegLib.volume.io import read_image
    from RefSegLib.volume.resample import grid_of, resample_array

    template = read_image(atlas_folder() / TEMPLATES["MNI152"])
    series = sitk.ReadImage(str(atlas_folder() / ATLAS))
    size = (*series.GetSize()[:3], 0)
    frames = [sitk.Extract(series, size, (0, 0, 0, frame)) for frame in DEEP]
    percent = np.max([sitk.GetArrayFromImage(frame) for frame in frames], axis=0).astype(np.float32)
    truth = resample_array(percent, grid_of(frames[0]), template.grid) >= 50
    middle = [(int(at.min()) + int(at.max())) // 2 for at in np.nonzero(truth)]
    box = tuple(slice(max(m - SIZE // 2, 0), max(m - SIZE // 2, 0) + SIZE) for m in middle)
    return template.array[0][box].astype(np.float32), truth[box]


def _begun(place: str) -> Session:
    """A session on the head. As Slicer starts one from segments: what is shown is 0.9 sure."""
    with np.load(OUT / "head.npz") as file:
        image, shown = file["image"], file["labels"]
    labels = [Label(value=n, name=name, color=(1, 0, 0)) for n, name in enumerate(NAMES, 1)]
    probabilities = np.empty((5, *shown.shape), np.float16)
    for n, layer in enumerate(probabilities):
        layer[...] = np.where(shown == n, np.float16(0.9), np.float16(0.025))
    return Session.create(place, Volume(image[None], _head_grid()), labels, probabilities)


def _head_grid() -> Grid:
    return Grid((HEAD,) * 3, origin=(-HEAD / 2, -HEAD / 2 - 18, -HEAD / 2 + 18))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps({"proxy": proxy, "clicks": clicks, "memory": memory, "head": head}[sys.argv[1]]()))
