"""The desk where jobs are asked for, found, cancelled and asked for again, and where workers say how far they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fn3hw.service import catalog
from fn3hw.service.database import Database
from fn3hw.service.errors import Conflict
from fn3hw.service.jobs.work import Parameters
from fn3hw.service.models import Device, Job, Submission, now

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
OPEN = ("queued", "running")
COMPUTING, DEVICES = "computing", "devices"
"""Queues that every worker takes jobs from; a worker that some devices belong to has one of its own for these."""
LOG_CHARACTERS = 1 << 16


class Queues(Protocol):
    """Hands jobs to workers."""

    def put(self, job_id: str, attempt: int, queue: str, device: str | None) -> None:
        """Have a worker do a job. Said again, it changes nothing."""
        ...

    def take_back(self, job_id: str, attempt: int) -> None:
        """Have no worker begin a job."""
        ...


def queue_of(device: Device | None) -> str:
    """The queue whose workers can do what is done on a device."""
    if device is None:
        return COMPUTING
    return DEVICES if device.worker is None else f"worker:{device.worker}"


class Desk:
    """Keeps the rows of jobs.

    Args:
        database: where they are.
        queues: hands them to workers.
    """

    def __init__(self, database: Database, queues: Queues) -> None:
        self._database, self._queues = database, queues

    def submit(self, parameters: Parameters, *, token_id: str | None, key: str | None = None) -> tuple[Job, bool]:
        """Ask for a job; also returns whether it is new.

        A job that was asked for before is found again, whatever its state; see `retry` for one that failed.

        Args:
            parameters: what is asked for.
            token_id: whom it comes from.
            key: the same request with the same key is the same job, even where its parameters name other work by now.

        Raises:
            NotFound, Conflict, InputError: as `Parameters.work`; `Conflict` too where the key was given for another.
        """
        asked = _digest(parameters)
        job, new = self._database.add(lambda session: self._submitted(session, parameters, asked, token_id, key))
        if job.state == "queued":
            self._queues.put(job.id, job.attempt, job.queue, job.device)
        return job, new

    def _submitted(
        self, session: Session, parameters: Parameters, asked: str, token_id: str | None, key: str | None
    ) -> tuple[Job, bool]:
        if key is not None:
            before = session.get(Submission, (token_id or "", key))
            if before is not None:
                if before.request_sha256 != asked:
                    raise Conflict(f"The idempotency key {key!r} was given for another request.")
                return catalog.job(session, before.job_id), False
        work = parameters.work(session)
        device = catalog.device(session, work.device) if work.device is not None else None
        job, new = session.get(Job, parameters.job_id), False
        if job is None:
            new = True
            job = Job(
                id=parameters.job_id,
                kind=parameters.kind,
                parameters=parameters.model_dump(mode="json"),
                state="queued",
                queue=queue_of(device),
                device=work.device,
                run_id=work.run_id,
                token_id=token_id,
                attempt=1,
                cancel=False,
                log="",
                created_at=now(),
            )
            session.add(job)
        if key is not None:
            session.add(
                Submission(token_id=token_id or "", key=key, request_sha256=asked, job_id=job.id, created_at=now())
            )
        session.flush()
        return job, new

    def retry(self, job_id: str) -> Job:
        """Ask once more for a job that failed or was cancelled; what its folder holds is not done again.

        Raises:
            NotFound: there is no such job.
            Conflict: it is not over, or it succeeded.
        """
        with self._database.session() as session:
            job = catalog.job(session, job_id, lock=True)
            if job.state not in ("failed", "cancelled"):
                raise Conflict(f"Job {job.id} is {job.state}: only one that failed or was cancelled is tried again.")
            device = session.get(Device, job.device) if job.device else None
            job.state, job.cancel, job.attempt = "queued", False, job.attempt + 1
            job.error, job.progress, job.finished_at, job.queue = None, None, None, queue_of(device)
        self._queues.put(job.id, job.attempt, job.queue, job.device)
        return job

    def cancel(self, job_id: str) -> Job:
        """Have a job stop; a running one does so within seconds. One that is over stays as it is.

        Raises:
            NotFound: there is no such job.
        """
        with self._database.session() as session:
            job = catalog.job(session, job_id, lock=True)
            if job.state == "queued":
                job.state, job.finished_at = "cancelled", now()
            elif job.state == "running":
                job.cancel = True
            waiting = job.state == "cancelled"
        if waiting:
            self._queues.take_back(job.id, job.attempt)
        return job

    def put_open_jobs(self) -> None:
        """Hand out once more what is queued: a kill between the row and the queue has lost nothing.

        What waits for a device that belongs to another worker by now waits for that one.
        """
        with self._database.reading() as session:
            asked = select(Job, Device).outerjoin(Device, Device.name == Job.device).where(Job.state == "queued")
            waiting = [(job, queue_of(device) if device else job.queue) for job, device in session.execute(asked)]
        for job, queue in waiting:
            if queue != job.queue:
                job = self._moved(job, queue)
            if job.state == "queued":
                self._queues.put(job.id, job.attempt, job.queue, job.device)

    def _moved(self, waiting: Job, queue: str) -> Job:
        with self._database.session() as session:
            job = catalog.job(session, waiting.id, lock=True)
            if job.state != "queued" or job.attempt != waiting.attempt:
                return job
            job.queue, job.attempt = queue, job.attempt + 1
        self._queues.take_back(waiting.id, waiting.attempt)
        return job

    def begin(self, job_id: str, attempt: int, worker: str) -> tuple[Job, str | None] | None:
        """A worker begins a job that another one, or itself, may have begun before; None where nothing is to be done.

        Returns:
            The job, and the worker that had begun it before.
        """
        with self._database.session() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.attempt != attempt or job.state not in OPEN:
                return None
            before = job.worker
            job.state, job.worker = "running", worker
            job.started_at = job.started_at or now()
            return job, before

    def report(self, job_id: str, *, progress: Mapping[str, Any] | None, log: str) -> None:
        """A worker says how far it is."""
        with self._database.session() as session:
            changes: dict[str, Any] = {"log": log[-LOG_CHARACTERS:]}
            if progress is not None:
                changes["progress"] = dict(progress)
            session.execute(update(Job).where(Job.id == job_id).values(**changes))

    def is_cancelled(self, job_id: str) -> bool:
        """Whether a job is to stop."""
        with self._database.reading() as session:
            return bool(session.scalar(select(Job.cancel).where(Job.id == job_id)))


def _digest(parameters: Parameters) -> str:
    text = json.dumps([parameters.kind, parameters.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
