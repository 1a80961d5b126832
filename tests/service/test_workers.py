"""Workers that join a server: two devices at once, one measurement at a time on each, and one that is lost for good."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import pytest

from fn3hw.client import Client, Job
from fn3hw.client.options import ProfileOptions
from fn3hw.errors import UnknownName
from fn3hw.service.jobs import flow
from tests.service.conftest import wait_for
from tests.service.running import Running, server_at
from tests.service.test_serving import progressing

pytestmark = pytest.mark.slow


@pytest.fixture
def kind() -> str:
    """Workers of several processes are what PostgreSQL is for; SQLite takes them, too."""
    return "postgresql"


@pytest.fixture
def crowd(tmp_path: Path, database_url: str) -> Iterator[list[Running]]:
    """A server without workers, and two workers with folders of their own, one of them for a device alone."""
    files = ("--storage", str(tmp_path / "files"))
    server = server_at(tmp_path / "server", database_url, *files, "--no-worker", "--name", "server")
    server.start()
    client = server.client()
    for name in ("left", "right"):
        client.add_device(name, f"{sys.executable} -")
    workers = [
        Running(tmp_path / "one", database_url, *files, "--name", "one"),
        Running(tmp_path / "two", database_url, *files, "--name", "two", "--device", "right"),
    ]
    for worker in workers:
        worker.start()
    yield [server, *workers]
    for one in (server, *workers):
        one.end(signal.SIGKILL)


def test_two_devices_are_busy_at_once_and_each_with_one_measurement(crowd: list[Running], made: Path) -> None:
    client = crowd[0].client()
    run = client.push(made)
    options: ProfileOptions = {"subnets": 4, "holdout": 0, "allow_noisy": True}
    jobs = [client.ask_check(name) for name in ("left", "right")]
    jobs += [client.profile(run, name, wait=False, **options) for name in ("left", "right")]
    jobs += [client.profile(run, name, wait=False, **options, repeat=1) for name in ("left", "right")]
    ended = [client.wait(job) for job in jobs]
    took = {name: sorted(times(job) for job in ended if job.device == name) for name in ("left", "right")}
    for each in took.values():
        assert len(each) == 3 and all(before[1] <= after[0] for before, after in pairwise(each))
    both = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in product(took["left"], took["right"]))
    alone = sum(end - start for start, end in took["left"])
    assert both > 0.5 * alone
    assert {job.worker for job in ended if job.device == "right"} == {"two"}
    assert {job.worker for job in ended if job.device == "left"} == {"one"}


def times(job: Job) -> tuple[float, float]:
    """When a job was begun, and when it was over."""
    assert job.started_at is not None and job.finished_at is not None
    return job.started_at.timestamp(), job.finished_at.timestamp()


def test_a_worker_that_stays_away_is_stood_in_for(
    crowd: list[Running], made: Path, tmp_path: Path, database_url: str
) -> None:
    client: Client = crowd[0].client()
    run, profile = client.push(made), client.push_profile(made / "profile.json", "left")
    search = client.search(run, profile, evaluations=5000, images=200, wait=False)
    wait_for(lambda: progressing(client, search), 120)
    time.sleep(8)  # what it has done so far is carried every few seconds
    crowd[1].end(signal.SIGKILL)
    before = (tmp_path / "one" / "jobs" / search.id / "run" / "archive.jsonl").read_text().splitlines()
    other = Running(tmp_path / "three", database_url, "--storage", str(tmp_path / "files"), "--name", "three")
    other.start()
    try:
        wait_for(lambda: client.job(search.id).worker == "three", flow.LOST_S + 60)
        archive = tmp_path / "three" / "jobs" / search.id / "run" / "archive.jsonl"
        wait_for(archive.exists, 60)
        wait_for(lambda: progressing(client, search) or client.job(search.id).state == "succeeded", 120)
        assert len(before) > 10 and archive.read_text().splitlines()[:10] == before[:10]
        client.cancel(search)
        wait_for(lambda: client.job(search.id).state == "cancelled", 60)
    finally:
        other.end(signal.SIGKILL)
        crowd[1].start()


def test_a_worker_for_a_device_that_is_unknown_does_not_start(tmp_path: Path, database_url: str) -> None:
    from fn3hw.cli import main

    arguments = ["worker", "--device", "mars", "--data", str(tmp_path), "--database", database_url]
    assert main.run(arguments) == UnknownName.exit_status
