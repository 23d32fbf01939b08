"""Reflection beside its rivals, on patients that nothing was trained or tuned on.

    python Testing/benchmarks/bench_reflection.py --data DIR [--folder out/bench-reflection] [--parts heart lung]

Trains what is not trained yet (ACDC and JSRT), calibrates on validation patients, evaluates case by case, and prints
the tables. Everything is kept in the folder: a run that was stopped goes on where it was. Shifts are drawn per case
by a hash of its name: every kind once, severities mixed. `motion` and `remap` were named before anything was run: no
candidate was made for them and calibration never sees them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # one case per core

import reflection_data as data
import reflection_heads
import reflection_table as table
import torch
from reflection_ablations import ablations
from RefSegLib.evaluation import METHODS, evaluate, named
from RefSegLib.inference.segmenter import ready_segmenter
from RefSegLib.models.networks import build_synthesizer
from RefSegLib.quality.shifts import NAMES, UNSEEN, Shift
from RefSegLib.reflection.calibration import calibrate
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import Synthesizer
from RefSegLib.training.cases import Case

NETWORKS = {"heart": ("B", "I", "A"), "lung": ("B", "A")}
PARTS = ("heart", "lung", "hippocampus")
SITES = {"heart": ("ACDC",), "lung": ("JSRT", "Montgomery", "Shenzhen")}
MOST = {"Montgomery": 36, "Shenzhen": 36}  # cases by hash, of 138 and 566
BLIND = "random G"
ABLATED = ("B", "I")  # networks on which parts of reflection are exchanged, too, for every other patient


def cases_of(organ: str, site: str, source: Path, folder: Path) -> list[Case]:
    """What is evaluated: test patients where the network was trained, all (or MOST, drawn by hash) elsewhere."""
    cases = data.hearts(source, folder) if organ == "heart" else data.lungs(source, folder, site)
    if site in ("ACDC", "JSRT"):
        return [case for case in cases if case.role == "test"]
    return sorted(cases, key=lambda case: zlib.crc32(case.name.encode()))[: MOST.get(site)]


def shifts_of(case: Case, site: str) -> list[Shift]:
    """Every kind once, with a severity that the name of the case decides; none where the hospital is the shift,
    and at JSRT, which it is compared with."""
    if site != "ACDC":
        return []
    return [Shift(name, 1 + zlib.crc32(f"{case.name} {name}".encode()) % 5) for name in (*NAMES, *UNSEEN)]


def methods_of(network: str, site: str, case: Case) -> list[str]:
    """Two hours have to do: consistency (ten seconds an image) looks at the first phase of every fourth patient, and so
    does TENT (four seconds), but for hearts and network B, where it sees the first phase of all."""
    chosen = list(METHODS)
    first = case.name.endswith("frame01") or site != "ACDC"
    fourth = first and zlib.crc32(case.patient.encode()) % 4 == 3
    if not fourth:
        chosen.remove("consistency")
        if site != "ACDC" or network != "B" or not first:
            chosen.remove("tent")
    return chosen


def model(organ: str, network: str, folder: Path, blind: bool = False):
    """Segmenter and synthesizer, of random weights if blind."""
    torch.set_num_threads(1)
    spec = data.spec_of(organ, network)
    segmenter = ready_segmenter(spec, data.trained(organ, network, [], [], folder), "cpu")
    if blind:
        torch.manual_seed(1)
        return segmenter, Synthesizer(spec, build_synthesizer(spec))
    return segmenter, Synthesizer(spec, data.trained(organ, "synthesizer", [], [], folder))


def train(organ: str, name: str, source: Path, folder: Path) -> str:
    """One network, unless it is there."""
    torch.set_num_threads(1)
    if not (folder / f"{organ}-{name}.safetensors").exists():
        cases = data.hearts(source, folder) if organ == "heart" else data.lungs(source, folder, "JSRT")
        parts = [
            data.samples_of([c for c in cases if c.role == role], organ, folder) for role in ("train", "validation")
        ]
        data.trained(organ, name, *parts, folder)
    return f"{organ} {name}: {json.loads((folder / f'{organ}-{name}.json').read_text())['score']:.3f} on validation"


def settings_file(organ: str, network: str, folder: Path, blind: bool) -> Path:
    """Where the calibration of a network is kept."""
    return folder / f"{organ}-{network}{'-blind' if blind else ''}.reflection.json"


def teach(organ: str, network: str, source: Path, folder: Path, blind: bool) -> str:
    """Calibrate reflection on validation patients, unless that was done."""
    file = settings_file(organ, network, folder, blind)
    if not file.exists():
        started = time.monotonic()
        cases = data.hearts(source, folder) if organ == "heart" else data.lungs(source, folder, "JSRT")
        samples = data.samples_of([case for case in cases if case.role == "validation"], organ, folder)
        found = calibrate(samples, *model(organ, network, folder, blind))
        file.write_text(found.model_dump_json())
        print(f"calibrated {file.name} in {time.monotonic() - started:.0f} s", flush=True)
    found = ReflectionSettings.model_validate_json(file.read_text())
    return f"{file.name}: {', '.join(found.candidates)}; margin {found.margin}; {found.report}"


def measure(organ: str, network: str, site: str, case: Case, folder: Path) -> Path:
    """Everything about one case, unless it is there."""
    file = folder / "results" / f"{organ}-{network}" / f"{site} {case.name}.json"
    if not file.exists():
        segmenter, synthesizer = model(organ, network, folder)
        settings = ReflectionSettings.model_validate_json(settings_file(organ, network, folder, False).read_text())
        methods = named(methods_of(network, site, case), synthesizer, settings)
        if site == "ACDC" and network in ABLATED and zlib.crc32(case.patient.encode()) % 2 == 0:
            blind = ReflectionSettings.model_validate_json(settings_file(organ, network, folder, True).read_text())
            _, noise = model(organ, network, folder, blind=True)
            methods[BLIND] = named(["reflect"], noise, blind)["reflect"]
            methods |= ablations(settings)
        found = evaluate(segmenter, synthesizer, settings, [case], methods=methods, shifts=shifts_of(case, site))
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(found["cases"]))
        partial.replace(file)
    return file


def measure_heads(folder: Path) -> Path:
    """The shipped model on whole heads. Consistency in three dimensions takes minutes a head and is left out."""
    file = folder / "results" / "hippocampus" / "MNI heads.json"
    if not file.exists():
        torch.set_num_threads(1)
        engine = reflection_heads.shipped(folder)
        methods = named(["none", "tent", "reflect"], engine.synthesizer, engine.settings)
        found = evaluate(
            engine.segmenter, engine.synthesizer, engine.settings, reflection_heads.heads(folder), methods=methods
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found["cases"]))
    return file


def _all(pool: ProcessPoolExecutor, jobs: list[tuple]) -> None:
    futures = [pool.submit(*job) for job in jobs]
    for number, future in enumerate(as_completed(futures), 1):
        print(f"{number} of {len(jobs)}: {future.result()}", flush=True)


def main() -> None:
    """Train, calibrate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("REFSEG_DATA"), required="REFSEG_DATA" not in os.environ
    )
    parser.add_argument("--folder", type=Path, default=Path("out/bench-reflection"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only so many cases per site")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    organs = [part for part in asked.parts if part in NETWORKS]
    pairs = [(organ, network) for organ in organs for network in NETWORKS[organ]]
    for organ in organs:
        for site in SITES[organ]:  # once, before processes ask for the same files
            cases_of(organ, site, asked.data, asked.folder)
    with ProcessPoolExecutor(asked.processes) as pool:
        jobs = [*pairs, *((organ, "synthesizer") for organ in organs)]
        _all(pool, [(train, *job, asked.data, asked.folder) for job in jobs])
        jobs = [(teach, *pair, asked.data, asked.folder, False) for pair in pairs]
        jobs += [
            (teach, *pair, asked.data, asked.folder, True)
            for pair in pairs
            if pair[0] == "heart" and pair[1] in ABLATED
        ]
        _all(pool, jobs)
        jobs = [
            (measure, organ, network, site, case, asked.folder)
            for organ in organs
            for site in SITES[organ]
            for case in cases_of(organ, site, asked.data, asked.folder)[: asked.limit]
            for network in NETWORKS[organ]
        ]
        jobs += [(measure_heads, asked.folder)] if "hippocampus" in asked.parts else []
        _all(pool, jobs)
    for organ, network in pairs:
        print(table.of(asked.folder / "results" / f"{organ}-{network}", f"{organ}, network {network}"))
    if "hippocampus" in asked.parts:
        print(table.of(asked.folder / "results" / "hippocampus", "hippocampus, shipped model, T1 templates"))


if __name__ == "__main__":
    main()
