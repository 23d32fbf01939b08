"""Gate 0: does the reflection score of a stored model rank wrong masks below the true one?

    python Testing/benchmarks/bench_gate0.py --model hippocampus --images DIR --labels DIR [--limit N] [--shift noise:3]

On validation patients only; the test patients are not touched. Prints the share of wrong masks that score below the
true one, per kind of error, and the mean rank correlation of score and Dice, for each part of the score.
"""

import argparse
import json
import zlib
from dataclasses import replace
from pathlib import Path

from RefSegLib.models.store import ModelStore
from RefSegLib.quality.shifts import parse
from RefSegLib.reflection.calibration import shifted
from RefSegLib.reflection.gate import gate_zero
from RefSegLib.reflection.settings import ReflectionSettings
from RefSegLib.synthesis.synthesizer import load_synthesizer
from RefSegLib.training.cases import load_samples, pair_cases

SCORES = {"ssim + correlation": (1.0, 1.0), "ssim": (1.0, 0.0), "correlation": (0.0, 1.0)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--shift", type=parse, help="measure on images with this shift instead of clean ones")
    asked = parser.parse_args()
    version = ModelStore(asked.store).load(asked.model)
    synthesizer = load_synthesizer(version)
    cases = [case for case in pair_cases(asked.images, asked.labels) if case.role == "validation"][: asked.limit]
    samples = [sample for case in cases for sample in load_samples(case, version.spec)]
    if asked.shift is not None:
        name, severity = asked.shift.name, asked.shift.severity
        samples = [
            replace(s, image=shifted(s, name, severity, zlib.crc32(s.name.encode()), version.spec)) for s in samples
        ]
    for what, (ssim, correlation) in SCORES.items():
        settings = ReflectionSettings(ssim_weight=ssim, correlation_weight=correlation)
        print(f"{what}, {len(samples)} images:", json.dumps(gate_zero(samples, synthesizer, settings)))


if __name__ == "__main__":
    main()
