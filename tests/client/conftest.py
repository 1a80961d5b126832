"""A server that answers as a test says, and one that is real but for its workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fn3hw.client import Client
from tests.client.serving import Served, served

TOKEN = "fn3hw_ab12cd_Secret-of-a-test"
URL = "http://localhost:8000"
MOMENT = "2026-11-22T12:00:00Z"


def job(state: str = "running", *, done: int | None = None, **changes: Any) -> dict[str, Any]:
    """A job as a server tells of it."""
    progress = {"what": "measuring", "done": done, "total": 9, "seconds_left": 1.0, "note": "", "at": MOMENT}
    return {
        **{"id": "profile-1", "kind": "profile", "parameters": {}, "state": state, "device": "local", "run_id": None},
        **{"attempt": 1, "worker": None, "result": None, "error": None, "created_at": MOMENT},
        **{"started_at": None, "finished_at": None, "progress": progress if done is not None else None},
        **changes,
    }


def events(*jobs: dict[str, Any]) -> httpx.Response:
    """A stream of events."""
    text = "".join(f": still there\n\nevent: job\ndata: {json.dumps(one)}\n\n" for one in jobs)
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text.encode())


class Script:
    """Answers in turn, and what was asked; an answer that is an exception is raised."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        answer = self.answers.pop(0)
        answer = answer(request) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a client makes, which take no time."""
    made: list[float] = []
    clock = SimpleNamespace(sleep=made.append, monotonic=lambda: time.monotonic() + sum(made))
    for module in ("connection", "watching", "downloading"):
        monkeypatch.setattr(f"fn3hw.client.{module}.time", clock)
    return made


@pytest.fixture
def client(script: Script, pauses: list[float]) -> Client:
    return Client(URL, TOKEN, transport=httpx.MockTransport(script))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "server") as found:
        yield found


@pytest.fixture
def admin(server: Served) -> Iterator[Client]:
    with Client(server.url, server.token) as found:
        yield found


Answer = Callable[[httpx.Request], httpx.Response]
