"""schemathesis over the service's own description of its API, with ids of things that are really there mixed in."""

import time
from collections import Counter
from contextlib import suppress

import httpx
import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

hypothesis.configuration.set_hypothesis_home_dir("/nonexistent")  # nothing is kept between runs


MOST_JOBS = 10  # that are really run


class Fuzz:
    """Asks what the description allows, and what it forbids.

    real: ids of a volume, a session and a job that are there. answers: number by status; faults: sentences."""

    def __init__(self, url: str, token: str, real: dict[str, str], description: dict) -> None:
        self.url, self.real = url, real
        self.jobs = 0
        self.headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=url, headers=self.headers, timeout=120, trust_env=False)
        self.answers: Counter[int] = Counter()
        self.faults: list[str] = []
        schema = schemathesis.openapi.from_dict(description)
        self.operations = [found.ok() for found in schema.get_all_operations()]

    def run(self, examples: int, *, seconds: float = 1e9, seed: int = 0) -> None:
        """About so many examples in all, for about so many seconds at most; the same for the same seed."""
        end, number = time.monotonic() + seconds, 0
        each = max(examples // len(self.operations) // 2, 1)
        for operation in self.operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                number += 1
                if time.monotonic() < end:
                    self._run(operation, mode, each, seed + number, end)

    def _run(self, operation, mode: GenerationMode, examples: int, seed: int, end: float) -> None:
        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(mode), real=st.integers(0, 3))
        def ask(case, real: int) -> None:
            if time.monotonic() < end:
                self._ask(case, real)

        # Of some operations nothing that the description forbids can be made.
        with suppress(hypothesis.errors.Unsatisfiable):
            ask()

    def _ask(self, case, real: int) -> None:
        if real:
            self._made_real(case)
        response = case.call(base_url=self.url, headers=self.headers, timeout=120)
        self.answers[response.status_code] += 1
        if response.status_code >= 500:
            self.faults.append(f"{case.as_curl_command()[:600]} -> {response.status_code} {response.text[:300]}")
        if response.status_code == 201 and case.operation.path == "/v1/sessions":
            self.client.delete(f"/v1/sessions/{response.json()['id']}").raise_for_status()
        if response.status_code == 202:
            self._wait(response.json(), case)

    def _wait(self, job: dict, case) -> None:
        self.jobs += 1
        while job["state"] in ("queued", "running"):
            job = self.client.get(f"/v1/jobs/{job['id']}", params={"wait": 5, "seen": job["revision"]}).json()
        if "could not finish" in (job["error"] or ""):
            self.faults.append(f"{case.body} -> {job['error']}")

    def _made_real(self, case) -> None:
        """So that most requests get behind the first door. Nothing that is there is ended by it."""
        path, body, kind = case.path_parameters, case.body, case.operation.path.split("/")[-1].removesuffix("s")
        if case.operation.path.startswith("/v1/"):
            kind = case.operation.path.split("/")[2].removesuffix("s")
        if isinstance(path, dict) and "identifier" in path and kind in self.real and case.method != "DELETE":
            path["identifier"] = self.real[kind]
        if isinstance(path, dict) and "name" in path:
            path["name"] = "balls"
        if isinstance(body, dict) and "volume" in body and (kind == "session" or self.jobs < MOST_JOBS):
            body["volume"] = self.real["volume"]
            if "model" in body:
                body["model"] = "balls"
