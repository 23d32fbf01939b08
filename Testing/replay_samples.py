"""Accepted cases of random voxels, a store as an earlier version wrote it, and all bytes of a home folder."""

import hashlib
import hmac
import json
import sqlite3
from pathlib import Path

import numpy as np
from InteractiveLearningLib.accepted import AcceptedCase
from InteractiveLearningLib.replay_arrays import packed
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.volume import LabelMap, Volume

SMALL = Grid((3, 4, 5))

# What that version's database said of itself.
SCHEMA_1 = """
CREATE TABLE settings (name VARCHAR NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (name));
CREATE TABLE patients ("key" VARCHAR NOT NULL, role VARCHAR NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE cases (
    number INTEGER NOT NULL, id VARCHAR NOT NULL, model VARCHAR NOT NULL, patient_key VARCHAR NOT NULL,
    accepted_at VARCHAR NOT NULL, image VARCHAR NOT NULL, labels VARCHAR NOT NULL, confidence VARCHAR,
    details VARCHAR NOT NULL, consent BOOLEAN NOT NULL,
    PRIMARY KEY (number), UNIQUE (id), FOREIGN KEY(patient_key) REFERENCES patients ("key")
);
CREATE INDEX ix_cases_model ON cases (model);
CREATE INDEX ix_cases_patient_key ON cases (patient_key);
INSERT INTO settings VALUES ('validation_patients', 3);
PRAGMA user_version = 1;
"""
OLD_KEY = bytes(range(32))


def a_case(patient: str, grid: Grid | None = None, seed: int = 0, shown: tuple[int, ...] = (1, 2), **changes):
    """A case of random voxels, with the label values `shown`."""
    grid = grid or Grid((6, 8, 10), (2.0, 1.0, 1.0))
    rng = np.random.default_rng(seed)
    image = Volume(rng.normal(size=grid.shape).astype(np.float32), grid)
    labels = LabelMap(rng.choice((0, *shown), grid.shape).astype(np.uint8), grid)
    labels.array.flat[: len(shown)] = shown
    values = {"model": "tiny", "image": image, "labels": labels, "patient": patient, "label_names": ("front", "back")}
    return AcceptedCase(**(values | changes))


def an_old_store(home: Path, patients: dict[str, str]) -> dict[str, str]:
    """The store of an earlier version with a case of each patient, on the side given; returns patient -> case."""
    folder, cases = home / "replay", {}
    folder.mkdir(parents=True)
    (folder / "patient.key").write_bytes(OLD_KEY)
    with sqlite3.connect(folder / "index.sqlite") as db:
        db.executescript(SCHEMA_1)
        for number, (patient, role) in enumerate(patients.items()):
            case, key = a_case(patient, seed=number), old_key(patient)
            names = [_kept(folder, packed(a)) for a in (case.image.array, case.labels.array)]
            details = {"grid": case.image.grid.to_dict(), "label_names": ["front", "back"], "annotated": [[0, 1]]}
            cases[patient] = f"{number:032x}"
            db.execute("INSERT INTO patients VALUES (?, ?)", (key, role))
            db.execute(
                "INSERT INTO cases VALUES (?, ?, 'tiny', ?, '2026-01-02T03:04:05+00:00', ?, ?, NULL, ?, 1)",
                (number + 1, cases[patient], key, *names, json.dumps(details | {"effort": None, "region": False})),
            )
    db.close()
    return cases


def old_key(patient: str) -> str:
    """The hash of a patient in such a store."""
    return hmac.new(OLD_KEY, patient.encode(), hashlib.sha256).hexdigest()


def all_bytes(folder: Path) -> bytes:
    """Names and contents of all files under a folder."""
    files = [f for f in folder.rglob("*") if f.is_file()]
    return b"\n".join(str(f.relative_to(folder)).encode() + b"\n" + f.read_bytes() for f in files)


def _kept(folder: Path, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    path = folder / "arrays" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name
