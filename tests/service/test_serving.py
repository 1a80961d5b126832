"""A server in a process of its own, from a push to a file that ONNX Runtime runs; killed and stopped on the way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from fn3hw.client import Client, Job
from fn3hw.errors import InfeasibleBudget, InputError
from tests.service.conftest import SLOWLY, wait_for
from tests.service.running import Running, server_at


@pytest.fixture(params=SLOWLY)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Running]:
    running = server_at(tmp_path / "server", database_url)
    running.start()
    yield running
    running.end(signal.SIGKILL)


def progressing(client: Client, job: Job) -> bool:
    """Whether a job has done some of its work."""
    found = client.job(job.id)
    assert found.state in ("queued", "running"), found
    return found.progress is not None and found.progress.what == "searching" and found.progress.done > 0


def test_from_a_push_to_a_file_across_a_kill(server: Running, made: Path, tmp_path: Path) -> None:
    client = server.client()
    run, profile = client.push(made, "tiny"), client.push_profile(made / "profile.json", "local")
    search = client.search(run, profile, evaluations=800, images=240, wait=False)
    wait_for(lambda: progressing(client, search), 120)
    server.end(signal.SIGKILL)
    archive = next((server.folder / "jobs").glob("search-*/run/archive.jsonl"))
    before = archive.read_bytes()
    server.start()
    ended = client.wait(search.id)
    assert ended.state == "succeeded" and ended.attempt == 1
    files = client.files(ended)
    kept = client.download(files["run/archive.jsonl"].sha256, tmp_path / "archive.jsonl").read_bytes()
    lines = [json.loads(line) for line in kept.splitlines()]
    full = [(line["key"], line["subnet"]) for line in lines if "images" not in line]
    assert kept.startswith(before[: before.rfind(b"\n") + 1]) and len(full) == len(set(full))
    assert not (server.folder / "jobs" / search.id).exists()

    with pytest.raises(InfeasibleBudget) as caught:
        client.lookup(search.id, latency_ms=1e-6)
    budget = 1.5 * caught.value.best
    point = client.lookup(search.id, latency_ms=budget)
    exported = client.export(search.id, tmp_path / "model.onnx", latency_ms=budget)
    assert exported.subnet and point.latency_ms_high is not None and point.latency_ms_high <= budget
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    shape = session.get_inputs()[0].shape
    answers = session.run(None, {session.get_inputs()[0].name: np.zeros((3, *shape[1:]), np.float32)})
    assert answers[0].shape[0] == 3

    again = client.search(run, profile, evaluations=800, images=240, wait=False)
    assert again.id == search.id and again.state == "succeeded", "the same work is found again"
    assert "Traceback" not in server.log and (server.folder / "token.txt").read_text().strip() not in server.log


def test_a_server_that_ends_lets_go_of_those_who_watch(server: Running, made: Path) -> None:
    client = server.client()
    run, profile = client.push(made), client.push_profile(made / "profile.json", "local")
    search = client.search(run, profile, evaluations=5000, images=200, wait=False)
    wait_for(lambda: progressing(client, search), 120)
    headers = {"Authorization": f"Bearer {(server.folder / 'token.txt').read_text().strip()}"}
    with httpx.stream("GET", f"{server.url}/v1/jobs/{search.id}/events", headers=headers, timeout=60) as events:
        lines = events.iter_lines()
        assert next(lines) == "event: job"
        assert server.end(signal.SIGTERM) == 0
        assert all(line.partition(":")[0] in ("", "event", "data") for line in lines)
    assert "Traceback" not in server.log and "ERROR" not in server.log


def test_stopped_and_cancelled_jobs(server: Running, made: Path) -> None:
    client = server.client()
    run, profile = client.push(made), client.push_profile(made / "profile.json", "local")
    search = client.search(run, profile, evaluations=5000, images=200, wait=False)
    wait_for(lambda: progressing(client, search), 120)
    other = client.search(run, profile, evaluations=5000, images=200, seed=1, wait=False)
    started = time.monotonic()
    assert server.end() == 0 and time.monotonic() - started < 40
    server.start()
    wait_for(lambda: progressing(client, search), 120)
    assert client.job(other.id).state == "queued", "one job computes at a time"
    assert client.cancel(other.id).state == "cancelled"
    client.cancel(search.id)
    wait_for(lambda: client.job(search.id).state == "cancelled", 60)
    assert (server.folder / "jobs" / search.id / "run" / "archive.jsonl").stat().st_size > 0
    again = client.retry(search.id)
    assert again.attempt == 2
    wait_for(lambda: progressing(client, again), 120)


def test_a_server_that_others_reach_needs_a_token_first(tmp_path: Path) -> None:
    from fn3hw.cli import main

    arguments = ["serve", "--host", "0.0.0.0", "--data", str(tmp_path), "--port", "0"]
    assert main.run(arguments) == InputError.exit_status
