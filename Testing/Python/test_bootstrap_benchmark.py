"""The benchmark of learning without labels: lines of several processes stay whole, and its table hides nothing."""

import sys
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from bench_bootstrap import append, read_results
from bootstrap_tables import tables

SETTINGS = {"translation": {}, "VAE steps": 1, "steps": 300, "rounds": 3}


def many_lines(file, name):
    for number in range(50):
        append(file, {"set": name, "job": str(number), "rows": [{"dice": [0.1234] * 2000}]})


def test_two_benchmarks_side_by_side_write_whole_lines(tmp_path):
    file = tmp_path / "results.jsonl"
    writers = [get_context("spawn").Process(target=many_lines, args=(file, name)) for name in ("one", "other")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with file.open("a") as stream:
        stream.write('{"set": "cut off by a ki')
    results = read_results(file)
    assert len(results) == 100
    assert {(r["set"], r["job"]) for r in results} == {(n, str(k)) for n in ("one", "other") for k in range(50)}


def entry(job, seed, *rows):
    told = [{"arm": arm, "dice": dice} for arm, dice in rows]
    return {"set": "optic disc", "job": job, "seed": seed, "seconds": 10, "memory": 900, "rows": told}


def test_the_table_tells_the_last_round_of_each_seed_and_what_was_not_done():
    one, two, three = (f"+ agreement, round {n}" for n in (1, 2, 3))
    oracle = "oracle: the true labels"
    results = [
        entry("agreement", 0, (one, [0.8, 0.9]), (two, [0.85, 0.95])),
        entry("agreement", 1, (one, [0.86, 0.86])),
        entry("oracle", 0, (oracle, [0.92, 0.92])),
        entry("oracle", 1, (oracle, [0.92, 0.92])),
        entry("other site", 0),
    ]
    lines = {line.split(" | ")[0].strip("| "): line for line in tables(results, SETTINGS).splitlines()}
    assert lines[one].endswith("| .850 and .860 (0 %) |")
    assert lines[two].endswith("| .900 (0 %) |") and lines[three].endswith("| ended before |")
    assert lines["true labels of the other site, with its images"].endswith("| there is none |")
    assert lines["CycleGAN"].endswith("| not measured |")
    assert lines["`refseg bootstrap`"].endswith("| 4.0 (aim: 4) |")  # .92 less the mean of .90 and .86
    assert lines["the ladder up to iterations"].endswith("| not measured |")
