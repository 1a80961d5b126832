"""Following a job until it is over: by the server's events, and by asking where events do not get through."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Final

import httpx

from fn3hw.client.connection import Connection
from fn3hw.client.errors import Unreachable, foreign
from fn3hw.client.models import Job

OnJob = Callable[[Job], None]
SILENT_S: Final = 45.0
"""The server says that it is still there every 15 s."""
POLL_S: Final = 2.0
FRUITLESS: Final = 3
"""Streams without one event, after which the server is asked instead."""
LOST_S: Final = 300.0
"""How long a server may be away: a job goes on without it, or is taken up when it is back."""


def watch(connection: Connection, job: Job, seen: OnJob) -> Job:
    """Follow a job until it is over.

    Args:
        connection: to its server.
        job: as it was known last.
        seen: called with the job at first and whenever it has changed.

    Raises:
        Unreachable: the server was away for too long; the job may go on.
    """
    seen(job)
    fruitless, met = 0, time.monotonic()
    while not job.is_over:
        asks, told = fruitless >= FRUITLESS, False
        try:
            for found in _asked(connection, job.id) if asks else _events(connection, job.id):
                told, met = True, time.monotonic()
                if found != job:
                    job = found
                    seen(job)
                if job.is_over:
                    return job
        except Unreachable as error:
            if time.monotonic() - met > LOST_S:
                raise Unreachable(
                    f"{error.message} Job {job.id} may go on there.",
                    hint=f"To see: fn3hw job watch {job.id} --server {connection.url}",
                ) from None
        fruitless = fruitless if asks else 0 if told else fruitless + 1
        time.sleep(POLL_S)
    return job


def _asked(connection: Connection, job_id: str) -> Iterator[Job]:
    yield connection.read(Job, "GET", f"/jobs/{job_id}")


def _events(connection: Connection, job_id: str) -> Iterator[Job]:
    """The job each time that the server tells of it; ends with the stream, which may be before the job does."""
    headers = {"Accept": "text/event-stream"}
    with connection.stream(f"/jobs/{job_id}/events", headers=headers, timeout_s=SILENT_S) as response:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        for name, data in _parsed(response):
            if name == "job":
                try:
                    found = Job.model_validate(json.loads(data))
                except ValueError:  # of JSON, or of pydantic
                    raise foreign(connection.url, "an event holds no job") from None
                yield found


def _parsed(response: httpx.Response) -> Iterator[tuple[str, str]]:
    """Names and data of server-sent events; one that is cut off is left out."""
    name, data = "message", list[str]()
    for line in response.iter_lines():
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        if field == "event":
            name = value.removeprefix(" ")
        elif field == "data":
            data.append(value.removeprefix(" "))
