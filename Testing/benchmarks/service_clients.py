"""Somebody who annotates through the service, remembers every answer, and looks for all of it after it was killed."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from InteractiveLearningLib.service import wire
from InteractiveLearningLib.session import Session
from RefSegLib.volume.volume import LabelMap, Volume
from service_robot import Refused, Robot, hands, shown_of, take
from tiny_learning import SPEC, an_image

FULL = 507
BACK = {"prompts": "undo", "undo": "redo", "redo": "undo"}
PEOPLE = 12


@dataclass
class Case:
    """What a client knows of the case at hand. events: lines of its log that were acknowledged; asking: what was asked
    and is not answered yet; names: what undo and redo would do."""

    volume: Volume
    truth: LabelMap
    patient: str
    steps: int
    uploaded: str | None = None
    session: str | None = None
    shown: np.ndarray | None = None
    events: int = 1
    asking: str | None = None
    names: dict[str, str | None] = field(default_factory=dict)


class Client:
    """One client with an account. accepted: ids of the cases whose acceptance was answered; faults: sentences.

    consent: whether the cases may be learnt; pace: most seconds between two steps.
    """

    def __init__(self, name: str, token: str, seed: int, consent: bool, pace: float) -> None:
        self.name, self.token, self._consent, self._pace = name, token, consent, pace
        self.answers: Counter[int] = Counter()
        self.accepted: list[str] = []
        self.uploads: list[str] = []
        self.faults: list[str] = []
        self.lost = Counter()  # by what was being asked when the answer never came
        self.case: Case | None = None
        self._random, self._count = random.Random(f"{name} {seed}"), 0

    def connect(self, url: str) -> None:
        """To a service that has just begun."""
        self.robot = Robot(url, self.token, self.answers)

    def work(self, over: threading.Event) -> None:
        """Annotate until told to stop, or until nobody answers."""
        while not over.wait(self._random.uniform(0, self._pace)):
            try:
                self.step()
            except Refused as refused:
                if refused.status != FULL:
                    self.faults.append(f"{self.name}: {refused}")
                    return
                time.sleep(0.03)
            except httpx.HTTPError:
                if self.case is not None:
                    self.lost[self.case.asking] += 1
                return

    def step(self) -> None:
        """The next thing to do."""
        case = self.case
        if case is None:
            self._count += 1
            seed = self._random.randrange(2**31)
            patient = f"{self.name}^{self._random.randrange(PEOPLE)}"
            case = self.case = Case(*an_image(seed), patient, self._random.randint(2, 7))
        if case.uploaded is None:
            self._ask("upload", lambda: self.robot.upload(case.volume, self._random.randint(800, 6000)))
            case.uploaded = wire.volume_id(case.volume)
            self.uploads.append(case.uploaded)
        elif case.session is None:
            session = self._ask("begin", lambda: self.robot.begin(case.uploaded, SPEC.labels))
            case.session, case.shown = session, np.zeros(case.truth.array.shape, np.uint8)
        elif case.events > case.steps and case.shown.any():
            self.accept()
        else:
            self._annotate(case)

    def _annotate(self, case: Case) -> None:
        draw, path = self._random.random(), f"/sessions/{case.session}"
        for name, chance in (("undo", 0.15), ("redo", 0.3)):
            if draw < chance and case.names.get(name):
                self._change(case, name, lambda name=name: self.robot.ask("POST", f"{path}/{name}"))
                return
        if 0.3 < draw < 0.4:
            self._ask("next", lambda: self.robot.ask("POST", f"{path}/next", json={}))
        elif 0.4 < draw < 0.45:
            about = {"kind": "segment", "volume": case.uploaded, "model": SPEC.name}
            self._ask("job", lambda: self.robot.ask("POST", "/jobs", json=about))
        else:
            hand, label = hands(case.truth, case.events), self._random.choice((1, 2))
            index = self._random.choice(np.flatnonzero((case.truth.array == label).any(axis=(1, 2))).tolist())
            prompt = hand.click(case.shown, (1, 2)) if self._random.random() < 0.4 else None
            prompt = prompt or hand.outline(label, 0, index)
            self._change(case, "prompts", lambda: self.robot.say(case.session, prompt))

    def _change(self, case: Case, what: str, change) -> None:
        changed = self._ask(what, change)
        take(case.shown, changed)
        case.events += 1
        case.names = {name: changed[name] for name in ("undo", "redo")}

    def _ask(self, what: str, call):
        self.case.asking = what
        try:
            found = call()
        except Refused as refused:
            if refused.status == FULL and what != "accept":  # nothing was kept
                self.case.asking = None
            raise
        self.case.asking = None
        return found

    def accept(self) -> None:
        """Accept the case at hand; the answer must name it, whoever kept it and when."""
        about = {"model": SPEC.name, "patient": self.case.patient, "consent": self._consent}
        path = f"/sessions/{self.case.session}/accept"
        found = self._ask("accept", lambda: self.robot.ask("POST", path, json=about))["case"]
        if found != self.case.session:
            self.faults.append(f"{self.name}: the case of session {self.case.session} is called {found}")
        self.accepted.append(found)
        self.case = None

    def look(self, home: Path) -> None:
        """After a restart, or with room on the disk again: what was acknowledged must be there, to the voxel."""
        for known in self.uploads[-3:]:
            if not self.robot.ask("GET", f"/volumes/{known}")["complete"]:
                self.faults.append(f"{self.name}: the upload {known} was acknowledged and is not there")
        case = self.case
        if case is not None and case.asking == "accept":
            self.accept()
        elif case is not None and case.session is not None:
            self._look_at(case, home)
        mine = None if self.case is None else self.case.session
        for session in self.robot.ask("GET", "/sessions")["sessions"]:
            if session["id"] != mine:  # begun, and the answer never came; of what was accepted nothing may be left
                if session["id"] in self.accepted:
                    self.faults.append(f"{self.name}: the session of the accepted case {session['id']} is still there")
                self.robot.ask("DELETE", f"/sessions/{session['id']}")

    def _look_at(self, case: Case, home: Path) -> None:
        path, where = f"/sessions/{case.session}", f"{self.name}: session {case.session}"
        found = len(self.robot.ask("GET", f"{path}/log")["events"])
        shown = shown_of(self.robot.state(case.session), case.shown.shape)
        with tempfile.TemporaryDirectory() as place:
            copy = shutil.copytree(home / "service" / "sessions" / self.name / case.session, Path(place) / "copy")
            with Session.open(copy) as replayed:
                if not np.array_equal(replayed.labels().array, shown):
                    self.faults.append(f"{where} is shown otherwise than its log says")
        if found == case.events + 1 and case.asking in BACK:  # it was kept and the answer was lost: back, and compare
            changed = self.robot.ask("POST", f"{path}/{BACK[case.asking]}")
            take(shown, changed)
            case.names = {name: changed[name] for name in ("undo", "redo")}
            case.events = found + 1
        elif found != case.events:
            self.faults.append(f"{where} has {found} events, {case.events} were acknowledged, {case.asking} asked")
            case.events = found
        if not np.array_equal(shown, case.shown):
            self.faults.append(f"{where} came back with {np.count_nonzero(shown != case.shown)} other voxels")
            case.shown = shown
        case.asking = None
