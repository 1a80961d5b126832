"""Servers and workers for benchmarks: processes that can be killed, and made-up rows to fill a database with."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from fn3hw.deploy import export
from fn3hw.searcher import Atlas, Point
from fn3hw.searcher.atlas import Provenance
from fn3hw.service import catalog
from fn3hw.service.database import Database
from fn3hw.service.models import Job, Profile, Search, now
from fn3hw.service.storage import Storage
from fn3hw.space import SearchSpace
from fn3hw.training import Recipe, Run, recipe_data, recipe_network


@dataclass(frozen=True)
class Process:
    """A running server or worker."""

    url: str
    pid: int


@contextmanager
def serving(folder: Path, port: int, *arguments: str) -> Iterator[Process]:
    """A server for as long as it is needed."""
    command = [sys.executable, "-m", "fn3hw", "serve", "--port", str(port), "--data", str(folder), *arguments]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        yield Process(url, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(url: str, seconds: float = 90.0) -> None:
    """Until a server can be used."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} is not ready after {seconds} s")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def fill(database: Database, storage: Storage, *, points: int) -> None:
    """An untrained digits network, a search ``search-1`` with an atlas of so many points, and a job that runs."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.load("digits")
        run = Run.create(Path(folder) / "run", recipe)
        export(recipe_network(recipe, recipe_data(recipe)).cpu().eval()).save(run.folder)
        files = {path.name: storage.put_path(path) for path in run.folder.iterdir() if path.is_file()}
    read = catalog.read_run(storage, files)
    atlas = storage.put(io.BytesIO(front(read.supernet.space, points)))
    empty = storage.put(io.BytesIO(b"{}"))
    with database.session() as session:
        row = catalog.add_run(session, read, name="made up", job_id=None)
        for file in (atlas, empty):
            catalog.keep_file(session, file, "x.json")
        common = {"sha256": empty.sha256, "verdict": "stable", "quantity": "latency", "summary": {}}
        session.add(
            Profile(id="profile-1", device="local", architecture=read.supernet.architecture, created_at=now(), **common)
        )
        session.flush()
        session.add(
            Search(
                id="search-1", run_id=row.id, profile_id="profile-1", device="local", atlas_name="atlas-made-up.json",
                atlas_sha256=atlas.sha256, evaluators_sha256=empty.sha256, summary={}, created_at=now(),
            )
        )  # fmt: skip
        session.add(
            Job(
                id="check-running", kind="check", parameters={}, state="running", queue="none", attempt=1,
                cancel=False, log="", created_at=now(),
            )
        )  # fmt: skip


def front(space: SearchSpace, n: int) -> bytes:
    """The file of an atlas of ``n`` points that are all on its front."""
    rng = np.random.default_rng(0)
    subnets = dict.fromkeys(space.random(rng) for _ in range(n))
    points = []
    for number, subnet in enumerate(subnets):
        share = number / n
        values = {"latency_ms": 1 + 4 * share, "peak_mib": 50 + share, "size_mib": 1 + share}
        interval = {"latency_ms_low": 0.98 * values["latency_ms"], "latency_ms_high": 1.02 * values["latency_ms"]}
        accuracy = 50 + 40 * share
        points.append(Point(subnet=subnet, accuracy=accuracy, evaluated_accuracy=accuracy, **values, **interval))
    made = Provenance(device="made up", network="0", profile="0", evaluator="0:0")
    with tempfile.TemporaryDirectory() as folder:
        return Atlas(points, made).save(folder).read_bytes()
