"""Kill the server and its workers again and again while jobs run, and see whether anything is lost or done twice.

A server without workers and two workers, all of one data folder, are killed (SIGKILL) at random moments and started
again, until so many kills are done and every job is over. Jobs: searches, exports, checks, profiles and trainings.
Usage: python benchmarks/service_kills.py RUN [KILLS] [JOBS] [DATABASE]; RUN is a small trained run with profile.json
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from report import PACKAGES, SERVICE, report
from servers import free_port, wait_until_ready
from sqlalchemy import create_engine, text

from fn3hw.client import Client, Job
from fn3hw.errors import Fn3hwError

EVERY_S = (1.0, 6.0)
SHARES = {"search": 0.4, "export": 0.24, "check": 0.16, "profile": 0.1, "train": 0.1}
SETTINGS = {"epochs": 1, "warm_up": 0.0, "network": {"options": {"stem": 8, "stages": [[8, 2, 2]], "head": 16}}}


def main() -> None:
    run, kills, n_jobs = Path(sys.argv[1]), *(int(one) for one in (sys.argv[2:4] + ["200", "50"][len(sys.argv[2:4]) :]))
    with tempfile.TemporaryDirectory(prefix="fn3hw-kills-") as folder:
        database = sys.argv[4] if len(sys.argv) > 4 else f"sqlite:///{folder}/rows.sqlite"
        crowd = Crowd(Path(folder), database)
        try:
            figures = played(crowd, run, kills, n_jobs, database, Path(folder))
        finally:
            crowd.end()
    report(f"service_kills-{figures['database']}", figures, packages=(*PACKAGES, *SERVICE))


def played(crowd: Crowd, run: Path, kills: int, n_jobs: int, database: str, folder: Path) -> dict[str, Any]:
    """Ask for jobs, kill, and see what became of them."""
    crowd.start_all()
    client = Client(crowd.url, (folder / "data" / "token.txt").read_text().strip())
    pushed = client.push(run, "killed"), client.push_profile(run / "profile.json", "local")
    first = client.search(*pushed, evaluations=12, images=60)
    started = time.monotonic()
    jobs = asked(client, pushed, first.id, n_jobs)
    done, while_open = kill_until(crowd, client, jobs, kills)
    crowd.settle()
    ended = [client.watch(job) if job.state in ("queued", "running") else job for job in found(client, jobs)]
    seconds = time.monotonic() - started
    return {
        "database": "sqlite" if "sqlite" in database else "postgresql",
        "kills": {**done, "all": sum(done.values()), "while_jobs_were_open": while_open},
        "jobs": len(jobs),
        "states": dict(Counter(job.state for job in ended)),
        "errors": [job.error.message for job in ended if job.error is not None],
        "seconds": seconds,
        **kept_once(client, database, ended, folder),
    }


class Crowd:
    """A server and two workers, each of which can be killed and is started again."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder, self._port = folder, free_port()
        self._environment = {**os.environ, "FN3HW_DATABASE": database}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://127.0.0.1:{self._port}"

    def start_all(self) -> None:
        """Start all three, and wait for the server."""
        for name in ("server", "first", "second"):
            self._start(name)
            if name == "server":
                wait_until_ready(self.url)

    def kill(self, name: str) -> None:
        """Kill one and start it again at once."""
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait()
        self._start(name)

    def settle(self) -> None:
        """Wait until the server answers, and start again what has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                self._start(name)
        wait_until_ready(self.url)

    def end(self) -> None:
        """Stop all."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(60)

    @property
    def names(self) -> list[str]:
        """Who there is."""
        return list(self._processes)

    def _start(self, name: str) -> None:
        verb = ["serve", "--no-worker", "--port", str(self._port), "--requests-per-s", "0"]
        command = [sys.executable, "-m", "fn3hw", *(verb if name == "server" else ["worker"])]
        command += ["--data", str(self._folder / "data"), "--name", name]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment
            )


def asked(client: Client, pushed: tuple[Any, Any], search: str, n: int) -> list[str]:
    """Ask for so many jobs of all kinds; their ids."""
    run, profile = pushed
    point = max(client.atlas(search).points, key=lambda one: one.latency_ms_high or 0.0)
    jobs: list[Job] = []
    for kind, share in SHARES.items():
        for number in range(round(share * n)):
            if kind == "search":
                jobs.append(client.search(run, profile, evaluations=30, images=200, seed=number + 1, wait=False))
            elif kind == "export":
                budget = (point.latency_ms_high or 1.0) * (1 + 0.01 * number)
                jobs.append(client.export(search, latency_ms=budget, verify_on=None, wait=False))
            elif kind == "check":
                jobs.append(client.ask_check("local"))
            elif kind == "profile":
                options = {"subnets": 4, "holdout": 0, "allow_noisy": True, "seed": number + 1}
                jobs.append(client.profile(run, "local", wait=False, **options))
            else:
                jobs.append(client.train("digits", {**SETTINGS, "seed": number}, wait=False))
    return [job.id for job in jobs]


def kill_until(crowd: Crowd, client: Client, jobs: list[str], kills: int) -> tuple[dict[str, int], int]:
    """Kill so often, as long as jobs are open and after that; how often whom, and how often while jobs were open."""
    rng, done, while_open, is_open = random.Random(0), Counter[str](), 0, True
    while sum(done.values()) < kills:
        time.sleep(rng.uniform(*EVERY_S))
        name = rng.choice(crowd.names)
        crowd.kill(name)
        done[name] += 1
        while_open += is_open
        if sum(done.values()) % 10 == 0:
            crowd.settle()
            states = Counter(job.state for job in found(client, jobs))
            is_open = bool(states["queued"] + states["running"])
            print(sum(done.values()), dict(states), file=sys.stderr, flush=True)
    return dict(done), while_open


def found(client: Client, jobs: list[str]) -> list[Job]:
    """The jobs as they are; a server that is just being started is waited for."""
    ended = []
    for job_id in jobs:
        for attempt in range(60):
            try:
                ended.append(client.job(job_id))
                break
            except Fn3hwError:
                if attempt == 59:
                    raise
                time.sleep(1)
    return ended


def kept_once(client: Client, database: str, jobs: list[Job], folder: Path) -> dict[str, Any]:
    """Evaluations and rounds that were kept, and how many of them are there more than once."""
    evaluations, rounds, seen_twice = 0, 0, 0
    for job in jobs:
        files = client.files(job)
        if job.kind == "search":
            path = client.download(files["run/archive.jsonl"].sha256, folder / f"{job.id}.jsonl")
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            keys = [(one["key"], one["subnet"], one["search"] if "images" in one else "") for one in lines]
            evaluations += len(keys)
            seen_twice += len(keys) - len(set(keys))
        if job.kind == "profile":
            path = client.download(files["profile.json"].sha256, folder / f"{job.id}.json")
            measured = json.loads(path.read_text())["measurements"]
            # Of a round that was done again, the samples differ; its number within its subnet does not.
            numbers = [(each["subnet"], each["role"], one["number"]) for each in measured for one in each["rounds"]]
            samples = [json.dumps(one["candidate_ns"]) for each in measured for one in each["rounds"]]
            rounds += len(numbers)
            seen_twice += 2 * len(numbers) - len(set(numbers)) - len(set(samples))
    with create_engine(database).connect() as connection:
        rows = connection.execute(text("SELECT count(*) FROM fn3hw_evaluations")).scalar_one()
        columns = "run_id, evaluator, subnet_sha256, search"
        distinct = connection.execute(
            text(f"SELECT count(*) FROM (SELECT DISTINCT {columns} FROM fn3hw_evaluations) AS one")
        ).scalar_one()
    return {
        "lines_of_archives": evaluations,
        "rounds_of_profiles": rounds,
        "there_twice": seen_twice,
        "evaluations_stored": rows,
        "stored_twice": rows - distinct,
    }


if __name__ == "__main__":
    main()
