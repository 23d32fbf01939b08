"""RefSeg's inference beside MONAI's sliding window: time, peak memory and labels, same network, same weights.

    python Testing/benchmarks/bench_inference.py [--quick] [--json FILE] [--rounds N]

Two real images: the T1 template that nilearn carries, resampled to 256 cubed (gray and white matter), and a CT of
512 x 512 x 48 (body and lungs; skipped where the shared data are absent). A small network is trained on each for about
two minutes first, so that its labels mean something, and kept in `build/bench-inference`. It says nothing about how
well a properly trained network segments.

MONAI runs as documented: window = the network's patch, Gaussian blending, `torch.inference_mode`, the best of 1, 2 and
4 windows at once. Each run has a process of its own, whose highest resident memory is read at its end; contestants take
turns, so that whatever else the machine does hits both, and medians are compared. Timed is from the normalized array
to the labels; loading (with the conversion for OpenVINO) is reported apart.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "bench-inference"
DATA = Path(os.environ.get("REFSEG_DATA", ROOT.parent / "shared" / "data"))
THREADS = 2
TRAINING_SECONDS = 120
CASES = {
    "T1 256x256x256": ((96, 96, 96), ("Gray matter", "White matter")),
    "CT 512x512x48": ((48, 128, 128), ("Body", "Lung")),
}


def spec_of(case: str):
    """The model of a case: the project's own network for volumes, at its usual width."""
    from RefSegLib.models.spec import Label, Network, SegmenterSpec

    patch, names = CASES[case]
    return SegmenterSpec(
        name="bench",
        channels=(case.split()[0],),
        labels=tuple(Label(value=n, name=name, color=(1, 0, 0)) for n, name in enumerate(names, 1)),
        spacing=(0, 0, 0),
        patch=patch,
        network=Network(name="dynunet", arguments={"filters": [16, 32, 64, 128]}),
    )


def brain() -> tuple[np.ndarray, np.ndarray]:
    """The T1 template at 256 cubed, and where its gray and white matter are more likely than not."""
    import SimpleITK as sitk
    from scipy.ndimage import zoom

    folder = Path(importlib.util.find_spec("nilearn").origin).parent / "datasets" / "data"
    images = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"mni_icbm152_{what}_tal_nlin_sym_09a_converted.nii.gz")))
        for what in ("t1", "gm", "wm")
    ]
    t1, gray, white = (zoom(i.astype(np.float32), [256 / n for n in i.shape], order=1) for i in images)
    return np.clip(t1 / 255, 0, 1)[None], ((gray > 127) + 2 * (white > 127)).clip(0, 2).astype(np.uint8)


def chest() -> tuple[np.ndarray, np.ndarray]:
    """A CT in the lung window, and by thresholds its body and the air within the body."""
    import SimpleITK as sitk
    from scipy import ndimage

    image = sitk.GetArrayFromImage(sitk.ReadImage(str(DATA / "pyradiomics_cases" / "lung1_image.nrrd")))
    labels = np.zeros(image.shape, np.uint8)
    for source, target in zip(image, labels, strict=True):
        parts, count = ndimage.label(source > -300)
        if count:
            body = ndimage.binary_fill_holes(
                parts == 1 + np.argmax(ndimage.sum_labels(source > -300, parts, range(1, count + 1)))
            )
            target[body] = 1
            target[body & ndimage.binary_opening(source < -500, iterations=2)] = 2
    return np.clip((image.astype(np.float32) + 1000) / 1400, 0, 1)[None], labels


def set_up(case: str, folder: Path) -> None:
    """Image, truth and trained weights of a case, in `folder`."""
    import torch
    from monai.losses import DiceCELoss
    from RefSegLib.models.networks import build_segmenter
    from safetensors.numpy import save_file

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    image, truth = brain() if case.startswith("T1") else chest()
    np.save(folder / "image.npy", image)
    np.save(folder / "truth.npy", truth)
    spec = spec_of(case)
    network = build_segmenter(spec)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    size = (48, 64, 64)
    inside = np.argwhere(truth[:: size[0] // 4, ::8, ::8] > 0) * (size[0] // 4, 8, 8)
    end = time.monotonic() + TRAINING_SECONDS
    while time.monotonic() < end:
        center = inside[random.integers(len(inside))]
        low = np.clip(center - np.asarray(size) // 2, 0, np.asarray(truth.shape) - size)
        cut = tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))
        logits = network(torch.from_numpy(image[(slice(None), *cut)].copy())[None])
        # While training the network may answer at several resolutions; the first is the full one.
        loss = loss_of(
            logits[:, 0] if logits.ndim == 6 else logits, torch.from_numpy(truth[cut].astype(np.int64))[None, None]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file({name: value.numpy() for name, value in network.state_dict().items()}, folder / "weights.safetensors")


def contest(case: str, folder: Path, contestant: str, overlap: float, windows: int) -> dict[str, float]:
    """One run of one contestant in this process; its labels go to `folder`."""
    import torch
    from RefSegLib.inference.segmenter import load_segmenter
    from RefSegLib.models.networks import build_segmenter
    from safetensors.numpy import load_file

    torch.set_num_threads(THREADS)
    image = np.load(folder / "image.npy")
    spec = spec_of(case)
    start = time.perf_counter()
    if contestant == "monai":
        network = build_segmenter(spec).eval()
        network.load_state_dict(
            {name: torch.from_numpy(value) for name, value in load_file(folder / "weights.safetensors").items()}
        )
    else:
        version = SimpleNamespace(spec=spec, segmenter=lambda: load_file(folder / "weights.safetensors"))
        segmenter = load_segmenter(version, device="cpu")
    loading = time.perf_counter() - start
    start, start_cpu = time.perf_counter(), time.process_time()
    if contestant == "monai":
        labels = with_monai(network, image, spec.patch, overlap, windows)
    else:
        from RefSegLib.inference.tiling import slabs

        # As `segment` does with big images: every slab becomes labels as soon as it is finished.
        labels = np.empty(image.shape[1:], np.uint8)
        for first, slab in slabs(segmenter, image, overlap=overlap):
            for k in range(slab.shape[1]):
                labels[first + k] = slab[:, k].argmax(0)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    np.save(folder / f"{contestant}-{overlap}.npy", labels)
    return {"seconds": seconds, "cpu": cpu, "loading": loading, "memory": peak_megabytes()}


def with_monai(network, image: np.ndarray, patch, overlap: float, windows: int) -> np.ndarray:
    """Labels by MONAI."""
    import torch
    from monai.inferers import sliding_window_inference

    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(image)[None], patch, windows, network, overlap=overlap, mode="gaussian"
        )
        return torch.stack([logits[0, :, k].argmax(0).to(torch.uint8) for k in range(image.shape[1])]).numpy()


def best_windows(case: str, folder: Path) -> dict[str, float]:
    """How many windows at once are fastest for MONAI, on a part of the image of at least four windows."""
    import torch
    from RefSegLib.models.networks import build_segmenter

    torch.set_num_threads(THREADS)
    patch = CASES[case][0]
    part = np.ascontiguousarray(np.load(folder / "image.npy")[:, : patch[0], : 2 * patch[1], : 2 * patch[2]])
    network = build_segmenter(spec_of(case)).eval()
    times = {}
    for windows in (1, 2, 4, 1, 2, 4):
        start = time.perf_counter()
        with_monai(network, part, patch, 0.0, windows)
        times[windows] = min(times.get(windows, np.inf), time.perf_counter() - start)
    return {"windows": min(times, key=times.get)}


def peak_megabytes() -> float:
    """Highest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def child(task: str, case: str, folder: Path, **options) -> dict[str, float]:
    """Run `task` in a process of its own."""
    command = [sys.executable, __file__, "--task", json.dumps([task, case, str(folder), options])]
    threads = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    done = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) or {}


def compare(case: str, folder: Path, overlaps: list[float], rounds: int, console: Console) -> list[dict]:
    """The rows of the table for one case."""
    from RefSegLib.quality.metrics import dice

    windows = child("best_windows", case, folder)["windows"]
    truth = np.load(folder / "truth.npy")
    rows = []
    for overlap in overlaps:
        runs: dict[str, list[dict]] = {"refseg": [], "monai": []}
        for _ in range(rounds):
            for contestant, found in runs.items():
                found.append(child("contest", case, folder, contestant=contestant, overlap=overlap, windows=windows))
                console.print(f"{case}, overlap {overlap}, {contestant}: {found[-1]['seconds']:.1f} s")
        labels = {name: np.load(folder / f"{name}-{overlap}.npy") for name in runs}
        row = {"case": case, "overlap": overlap, "monai_windows": windows}
        for name, found in runs.items():
            row[name] = {key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}
            row[name]["dice"] = {
                label: round(dice(labels[name] == n, truth == n), 4) for n, label in enumerate(CASES[case][1], 1)
            }
        row["faster"] = round(row["monai"]["seconds"] / row["refseg"]["seconds"], 2)
        # Seconds of the processors: hardly changed by what else the machine does.
        row["faster_cpu"] = round(row["monai"]["cpu"] / row["refseg"]["cpu"], 2)
        row["dice_between"] = {
            label: round(dice(labels["refseg"] == n, labels["monai"] == n), 5)
            for n, label in enumerate(CASES[case][1], 1)
        }
        rows.append(row)
    return rows


def show(rows: list[dict], console: Console) -> None:
    """The table."""
    table = Table(title=f"From normalized array to labels, {THREADS} threads, medians")
    for column in (
        "image",
        "overlap",
        "RefSeg s",
        "MONAI s",
        "faster (by CPU time)",
        "RefSeg MB",
        "MONAI MB",
        "Dice between",
        "Dice to truth",
    ):
        table.add_column(column)
    for row in rows:
        ours, theirs = row["refseg"], row["monai"]
        table.add_row(
            row["case"],
            str(row["overlap"]),
            f"{ours['seconds']:.1f} (+{ours['loading']:.1f})",
            f"{theirs['seconds']:.1f} (+{theirs['loading']:.1f})",
            f"{row['faster']:.2f} ({row['faster_cpu']:.2f})",
            f"{ours['memory']:.0f}",
            f"{theirs['memory']:.0f}",
            "\n".join(f"{label} {value:.4f}" for label, value in row["dice_between"].items()),
            "\n".join(f"{value:.4f} / {theirs['dice'][label]:.4f}" for label, value in ours["dice"].items()),
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, overlap 0.25 only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task, case, folder, arguments = json.loads(options.task)
        print(
            json.dumps(
                {"set_up": set_up, "contest": contest, "best_windows": best_windows}[task](
                    case, Path(folder), **arguments
                )
            )
        )
        return
    console, rows = Console(), []
    for case in CASES:
        folder = CACHE / case.replace(" ", "-")
        if case.startswith("CT") and not (DATA / "pyradiomics_cases" / "lung1_image.nrrd").exists():
            console.print(f"{case}: skipped, {DATA} is not here; set REFSEG_DATA to the folder of the shared data")
            continue
        if not (folder / "weights.safetensors").exists():
            console.print(f"{case}: training a network for {TRAINING_SECONDS} s")
            child("set_up", case, folder)
        rows += compare(
            case, folder, [0.25] if options.quick else [0.25, 0.5], 1 if options.quick else options.rounds, console
        )
    show(rows, console)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
