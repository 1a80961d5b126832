"""Jobs: ask for them, watch them, stop them, ask again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import defer

from fn3hw.service import catalog
from fn3hw.service.api.shared import (
    ERRORS,
    PREFIX,
    After,
    ErrorInfo,
    Id,
    Limit,
    Model,
    Page,
    Parts,
    PartsOf,
    Reader,
    Submitter,
    paged,
)
from fn3hw.service.jobs.desk import OPEN
from fn3hw.service.jobs.kinds import Compare, Export, FindFront, Measure, Train
from fn3hw.service.jobs.work import Parameters
from fn3hw.service.models import File, Job, JobFile
from fn3hw.service.tokens import Holder
from fn3hw.space.files import plain

router = APIRouter(prefix=PREFIX, tags=["jobs"], responses=ERRORS)
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="The same request with the same key is the same job, however often it is sent.",
    ),
]
_EVENT = {"type": "object", "properties": {"event": {"const": "job"}, "data": {"type": "string"}}}
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class ProgressModel(Model):
    """How far a job is."""

    what: str
    done: int
    total: int
    seconds_left: float | None
    note: str
    at: datetime


class JobModel(Model):
    """A job."""

    id: str
    kind: str
    parameters: dict[str, Any]
    state: State
    device: str | None
    run_id: str | None
    attempt: int
    worker: str | None
    progress: ProgressModel | None
    result: dict[str, Any] | None = Field(description="The document of the verb, as in the shell, its error left out.")
    made: str | None = Field(description="Id of the run, profile or search that it ended in.")
    error: ErrorInfo | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobFileModel(Model):
    """A file that a job ended in: its content is ``/v1/artifacts/SHA256``."""

    name: str
    sha256: str
    size: int
    media_type: str


def model_of(job: Job) -> JobModel:
    """A row as the API gives it."""
    values = {name: getattr(job, name) for name in JobModel.model_fields if name not in ("progress", "error")}
    told = job.progress
    progress = (
        ProgressModel(
            what=told["progress"],
            done=told["done"],
            total=told["total"],
            seconds_left=told.get("seconds_left"),
            note=told.get("note", ""),
            at=told["at"],
        )
        if told
        else None
    )
    known = {name: value for name, value in (job.error or {}).items() if name in ErrorInfo.model_fields}
    error = ErrorInfo(**{**known, "job_id": job.id}) if job.error else None
    return JobModel(**values, progress=progress, error=error)


def ask(parts: Parts, holder: Holder, parameters: Parameters, response: Response, key: str | None = None) -> JobModel:
    """Ask for a job; 202 where it is new or goes on, 200 where it is over already."""
    job, _ = parts.desk.submit(parameters, token_id=holder.token_id, key=key)
    response.status_code = 202 if job.state in OPEN else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return model_of(job)


@router.post("/trainings", status_code=202)
def train(body: Train, holder: Submitter, parts: PartsOf, response: Response, key: Key = None) -> JobModel:
    """Train a network; it ends in a run."""
    body.effective()
    return ask(parts, holder, body, response, key)


@router.post("/profiles", status_code=202)
def profile(body: Measure, holder: Submitter, parts: PartsOf, response: Response, key: Key = None) -> JobModel:
    """Measure subnets of a run on a device; it ends in a profile."""
    return ask(parts, holder, body, response, key)


@router.post("/searches", status_code=202)
def search(body: FindFront, holder: Submitter, parts: PartsOf, response: Response, key: Key = None) -> JobModel:
    """Search under measured cost; it ends in a search with an atlas."""
    return ask(parts, holder, body, response, key)


@router.post("/exports", status_code=202)
def export(body: Export, holder: Submitter, parts: PartsOf, response: Response, key: Key = None) -> JobModel:
    """Write and measure the ONNX file for a budget; it ends in the file ``model.onnx``."""
    return ask(parts, holder, body, response, key)


@router.post("/comparisons", status_code=202)
def compare(body: Compare, holder: Submitter, parts: PartsOf, response: Response, key: Key = None) -> JobModel:
    """Compare ways to search; it ends in a report."""
    return ask(parts, holder, body, response, key)


@router.get("/jobs")
def list_jobs(
    _: Reader,
    parts: PartsOf,
    kind: Literal["train", "check", "profile", "search", "export", "compare"] | None = None,
    state: State | None = None,
    device: str | None = None,
    run: str | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[JobModel]:
    """Jobs, the newest first."""
    query = select(Job).options(defer(Job.log))
    for column, value in ((Job.kind, kind), (Job.state, state), (Job.device, device), (Job.run_id, run)):
        if value is not None:
            query = query.where(column == _text(value))
    with parts.database.reading() as session:
        return paged(session, query, [Job.created_at, Job.id], limit, after, model_of)


@router.get("/jobs/{job_id}")
def read_job(job_id: Id, _: Reader, parts: PartsOf) -> JobModel:
    """One job."""
    with parts.database.reading() as session:
        return model_of(catalog.job(session, job_id))


@router.get("/jobs/{job_id}/files")
def list_files(job_id: Id, _: Reader, parts: PartsOf) -> list[JobFileModel]:
    """What a job ended in."""
    with parts.database.reading() as session:
        catalog.job(session, job_id)
        rows = session.execute(
            select(JobFile, File).join(File, File.sha256 == JobFile.sha256).where(JobFile.job_id == job_id)
        )
        return [
            JobFileModel(name=row.name, sha256=file.sha256, size=file.size, media_type=file.media_type)
            for row, file in rows
        ]


@router.get("/jobs/{job_id}/log", response_class=PlainTextResponse)
def read_log(job_id: Id, _: Reader, parts: PartsOf) -> PlainTextResponse:
    """The last lines that a job said."""
    with parts.database.reading() as session:
        return PlainTextResponse(catalog.job(session, job_id).log)


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: Id, _: Submitter, parts: PartsOf) -> JobModel:
    """Stop a job. What it has done stays, and is found again by a retry."""
    return model_of(parts.desk.cancel(job_id))


@router.post("/jobs/{job_id}/retry", status_code=202)
def retry_job(job_id: Id, _: Submitter, parts: PartsOf) -> JobModel:
    """Ask once more for a job that failed or was cancelled."""
    return model_of(parts.desk.retry(job_id))


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": _EVENT}}}},
)
async def watch_job(job_id: Id, _: Reader, parts: PartsOf, request: Request) -> StreamingResponse:
    """Server-sent events ``job``, each the job as it then is, whenever it has changed, until it is over."""
    watcher = request.app.state.watcher
    first = await watcher.look(job_id)
    return StreamingResponse(
        _events(watcher, job_id, first), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


class Watcher:
    """Looks after the jobs that somebody watches: each is read once a second, however many watch it.

    Args:
        parts: of the server.
        in_thread: runs a function beside the event loop.
    """

    EVERY_S = 1.0

    def __init__(self, parts: Parts, in_thread: Any) -> None:
        self._parts, self._in_thread = parts, in_thread
        self._seen: dict[str, tuple[float, asyncio.Task[JobModel]]] = {}
        self.is_closing: Callable[[], bool] = lambda: False
        """Whether the server is about to end: nobody is to be kept waiting then."""

    async def look(self, job_id: str) -> JobModel:
        """A job as it was at most a second ago.

        Raises:
            NotFound: there is none.
        """
        now = asyncio.get_running_loop().time()
        at, task = self._seen.get(job_id, (-1.0, None))
        if task is None or now - at >= self.EVERY_S:
            task = asyncio.ensure_future(self._in_thread(lambda: self._read(job_id)))
            self._seen[job_id] = now, task
            for name in [name for name, (then, _) in self._seen.items() if now - then > 10 * self.EVERY_S]:
                del self._seen[name]
        return await asyncio.shield(task)

    def _read(self, job_id: str) -> JobModel:
        with self._parts.database.reading() as session:
            return model_of(catalog.job(session, job_id))


async def _events(watcher: Watcher, job_id: str, job: JobModel) -> AsyncIterator[bytes]:
    last, silent = b"", 0.0
    while True:
        data = json.dumps(plain(job.model_dump(mode="json"))).encode()
        if data != last:
            yield b"event: job\ndata: " + data + b"\n\n"
            last, silent = data, 0.0
        elif silent >= 15.0:
            yield b": still there\n\n"
            silent = 0.0
        if job.state not in OPEN or watcher.is_closing():
            return
        await asyncio.sleep(watcher.EVERY_S)
        silent += watcher.EVERY_S
        job = await watcher.look(job_id)


def _text(value: str) -> str:
    """A text that a database can compare: none has zero bytes."""
    return value.replace("\x00", "")
