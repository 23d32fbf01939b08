"""How good the mask is after so many slices or clicks, ours and that of others, on real patients.

    make bench-interaction, or
    python Testing/benchmarks/bench_interaction.py [--split test] [--limit N] [--parts ...] [--redo ours] [--tables]

proxy: masks from k outlined slices, beside Grow from seeds, Fill between slices, copying, signed distances and ANTs.
model: a model's mask is corrected; new: a structure no model knows is drawn; by robots, perfect and imprecise.
speed: seconds and memory, beside those of others.

Every finished case is one line of results.jsonl and is not computed again; --redo ours forgets ours and keeps the
others'. The tables go to table.md in the same folder.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import interaction_proxies
import interaction_sessions
import interaction_speed
from interaction_data import OUT
from interaction_peers import FOREIGN
from interaction_tables import tables, write
from rich.progress import track

PARTS = {
    "proxy": interaction_proxies,
    "model": interaction_sessions,
    "new": interaction_sessions,
    "speed": interaction_speed,
}
RESULTS = OUT / "results.jsonl"


def main() -> None:
    """Compute what is missing, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--limit", type=int, help="cases per data set")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--redo", help="whose results of these parts and this split are to be made anew, as 'ours'")
    parser.add_argument("--only", help="compute nothing but the methods of these names, as 'ours' or 'fill,growcut'")
    parser.add_argument("--tables", action="store_true", help="compute nothing, print what there is")
    options = parser.parse_args()
    parts = options.parts.split(",")
    OUT.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    if options.redo:
        again = options.redo.split(",")
        lines = [
            line
            for line in lines
            if not (line["of"] in again and line["part"] in parts and line["split"] == options.split)
        ]
        RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = {_key(line): line["rows"] for line in lines}
    tasks = [task for part in parts for task in PARTS[part].tasks(options.split, options.limit) if task["part"] == part]
    if options.only:
        tasks = [task for task in tasks if task["of"] in options.only.split(",")]
    if not options.tables:
        with RESULTS.open("a") as out:
            for task in track([task for task in tasks if _key(task) not in known], "cases"):
                known[_key(task)] = PARTS[task["part"]].run(task)
                out.write(json.dumps(task | {"rows": known[_key(task)]}) + "\n")
                out.flush()
        FOREIGN.close()
    rows = [task | row for task in tasks for row in known.get(_key(task), [])]
    write(tables(rows), OUT / "table.md")


def _key(task: dict) -> str:
    return json.dumps({name: value for name, value in task.items() if name != "rows"}, sort_keys=True)


if __name__ == "__main__":
    main()
