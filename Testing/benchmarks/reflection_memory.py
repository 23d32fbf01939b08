"""Peak memory of a process that segments, with and without reflection.

    python Testing/benchmarks/reflection_memory.py --folder out/bench-reflection

After bench_reflection: the largest heart under a shift that makes it look again (network B, with mixed statistics), and
a whole head with the shipped model, its image inverted. Each in a process of its own; Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"


def peak() -> float:
    """MB, since the last call of `forget`."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def forget() -> None:
    """Start measuring anew."""
    Path("/proc/self/clear_refs").write_text("5")


def one(what: str, reflecting: bool, source: Path, folder: Path) -> None:
    """Segment and print what was there before, and the peak."""
    import bench_reflection as bench
    import reflection_heads as heads
    from RefSegLib.evaluation import named
    from RefSegLib.inference.predict import segment
    from RefSegLib.quality.shifts import shift
    from RefSegLib.reflection.settings import ReflectionSettings
    from RefSegLib.volume.io import read_image

    if what == "heart":
        segmenter, synthesizer = bench.model("heart", "B", folder)
        settings = bench.settings_file("heart", "B", folder, False)
        settings = ReflectionSettings.model_validate_json(settings.read_text())
        case = max(bench.cases_of("heart", "ACDC", source, folder), key=lambda c: c.image.stat().st_size)
    else:
        engine = heads.shipped(folder)
        segmenter, synthesizer, settings = engine.segmenter, engine.synthesizer, engine.settings
        case = heads.heads(folder)[0]
    volume = shift(read_image(case.image), "gamma" if what == "heart" else "invert", 5, 0)
    refine = named(["reflect"], synthesizer, settings)["reflect"] if reflecting else None
    segment(volume, segmenter)  # everything is loaded and compiled
    forget()
    before = peak()
    result = segment(volume, segmenter, refine=refine)
    looked = [len(region.reflection.candidates) for region in result.regions] if reflecting else []
    print(f"{before:.0f} {peak():.0f} {looked}")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("REFSEG_DATA"))
    parser.add_argument("--folder", type=Path, default=Path("out/bench-reflection"))
    parser.add_argument("--one", nargs=2)
    asked = parser.parse_args()
    if asked.one:
        one(asked.one[0], asked.one[1] == "reflect", asked.data, asked.folder)
        return
    print("| image | method | MB before | MB at the peak | candidates |\n|---|---|---|---|---|")
    for what in ("heart", "head"):
        for method in ("none", "reflect"):
            command = [sys.executable, __file__, "--folder", asked.folder, "--one", what, method]
            command += ["--data", asked.data] if asked.data else []
            run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
            before, most, looked = run.stdout.strip().splitlines()[-1].split(" ", 2)
            print(f"| {what} | {method} | {before} | {most} | {looked} |")


if __name__ == "__main__":
    main()
