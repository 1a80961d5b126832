"""Which worker does which job: durable workflows of DBOS, in the same database as the rows.

A device is a partition of a queue that lets one job through at a time, whatever the number of workers. A job whose
worker was killed is taken up by it when it is started anew, or by another one once its last sign of life is old.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID
from dbos._error import DBOSException  # its public name is no module
from sqlalchemy import make_url, select

from fn3hw.errors import InputError
from fn3hw.service import catalog
from fn3hw.service.database import Database, translated
from fn3hw.service.jobs.desk import COMPUTING, DEVICES, Desk
from fn3hw.service.jobs.workshop import Parked, Workshop
from fn3hw.service.models import Worker, now
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage

APPLICATION, VERSION = "fn3hw", "jobs-1"
"""The version is that of the steps below: a job begun by one version of fn3hw is finished by the next."""
BEAT_S = 5.0
LOST_S = 30.0
POLL_S = 0.5

_LOG = logging.getLogger(__name__)
_workshop: Workshop | None = None


def _open() -> Workshop:
    assert _workshop is not None, "a job is done by a worker"
    return _workshop


@DBOS.workflow(name="job")
def _job(job_id: str, attempt: int) -> None:
    brought = _perform(job_id, attempt)
    if brought is not None:
        _finish(job_id, attempt, brought)


@DBOS.step(name="perform")
def _perform(job_id: str, attempt: int) -> dict[str, Any] | None:
    with _not_over():
        return _open().perform(job_id, attempt)


@DBOS.step(name="finish")
def _finish(job_id: str, attempt: int, brought: dict[str, Any]) -> None:
    with _not_over():
        _open().finish(job_id, attempt, brought)


@contextmanager
def _not_over() -> Iterator[None]:
    """A step that is parked is not over: the process ends now, and the step begins anew in the next one."""
    try:
        yield
    except Parked:
        threading.Event().wait()
        raise


class Flow:
    """The queues, as one process sees them. There is one a process.

    Args:
        settings: of the process.
        database: has the rows.
        storage: has the files.
        devices: jobs of these devices alone are taken, and by this process alone; by default those of all others.
        takes_jobs: whether this process does jobs at all.

    Raises:
        InputError: a process of the same name is at work, or there is no such device.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        storage: Storage,
        *,
        devices: Sequence[str] = (),
        takes_jobs: bool = True,
    ) -> None:
        self._settings, self._database = settings, database
        self._devices, self._takes_jobs = list(devices), takes_jobs
        self._process = f"{platform.node()[:40]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._closing = threading.Event()
        self._beating: threading.Thread | None = None
        self.desk = Desk(database, self)
        self._workshop = Workshop(settings, database, storage, self.desk, self._closing)

    def open(self) -> None:
        """Begin to hand out and to take jobs; those that this process had begun before go on."""
        global _workshop
        self._sign_on()
        self._claim_devices()
        _workshop = self._workshop
        url = make_url(self._database.url)
        own = f"worker:{self._settings.name}"
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": url.render_as_string(hide_password=False),
            "application_version": VERSION,
            "executor_id": self._settings.name,
            "serializer": DBOSPortableJSONSerializer(),
            "run_migrations": True,
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        DBOS(config=config)
        if not self._takes_jobs:
            DBOS.listen_queues([])
        elif self._devices:
            DBOS.listen_queues([own])
        else:
            DBOS.listen_queues([COMPUTING, DEVICES, own])
        with translated():
            DBOS.launch()
            DBOS.register_queue(COMPUTING, worker_concurrency=1, polling_interval_sec=POLL_S)
            for name in (DEVICES, own):
                DBOS.register_queue(name, partition_concurrency=1, polling_interval_sec=POLL_S)
        self.desk.put_open_jobs()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def close(self) -> None:
        """Stop: running verbs are interrupted, and go on when a process of this name is opened again."""
        self._closing.set()
        DBOS.destroy(workflow_completion_timeout_sec=0)
        with self._database.session() as session:
            row = session.get(Worker, self._settings.name)
            if row is not None and row.process == self._process:
                row.seen_at = now() - timedelta(seconds=LOST_S)

    def put(self, job_id: str, attempt: int, queue: str, device: str | None) -> None:
        """See `Queues.put`."""
        options = SetEnqueueOptions(queue_partition_key=device) if device is not None else SetEnqueueOptions()
        with translated(), SetWorkflowID(_workflow(job_id, attempt)), options:
            if queue not in (COMPUTING, DEVICES):
                DBOS.register_queue(
                    queue, partition_concurrency=1, polling_interval_sec=POLL_S, on_conflict="never_update"
                )
            DBOS.enqueue_workflow(queue, _job, job_id, attempt)

    def take_back(self, job_id: str, attempt: int) -> None:
        """See `Queues.take_back`."""
        with translated():
            DBOS.cancel_workflow(_workflow(job_id, attempt))

    def _sign_on(self) -> None:
        """Take the name of this worker, once nobody else has it."""
        end = time.monotonic() + 4 * BEAT_S
        while not self._signed_on():
            if time.monotonic() > end:
                raise InputError(
                    f"A worker called {self._settings.name!r} is at work already.",
                    hint="Give this one another name with --name.",
                )
            time.sleep(POLL_S)

    def _claim_devices(self) -> None:
        """From now on, jobs on its devices wait for this worker."""
        with self._database.session() as session:
            for name in self._devices:
                catalog.device(session, name).worker = self._settings.name

    def _signed_on(self) -> bool:
        with self._database.session() as session:
            row = session.get(Worker, self._settings.name, with_for_update=True)
            fresh = row is not None and now() - row.seen_at < timedelta(seconds=3 * BEAT_S)
            if row is not None and fresh and row.process != self._process and _may_be_there(row.process):
                return False
            session.merge(Worker(name=self._settings.name, process=self._process, devices=self._devices, seen_at=now()))
            return True

    def _beat(self) -> None:
        since = last = time.monotonic()
        while not self._closing.wait(BEAT_S):
            if time.monotonic() - last > 3 * BEAT_S:
                since = time.monotonic()
            last = time.monotonic()
            try:
                self._seen()
                if last - since > LOST_S:  # after an outage, of the database or of this machine, others are late, too
                    self._recover_lost()
                self.desk.put_open_jobs()
            except (InputError, DBOSException) as error:
                since = time.monotonic()
                _LOG.warning("%s", error)
            except Exception as error:
                since = time.monotonic()
                _LOG.error("A bug: %s", type(error).__name__, exc_info=error)

    def _seen(self) -> None:
        with self._database.session() as session:
            row = session.get(Worker, self._settings.name)
            if row is not None:
                row.seen_at = now()

    def _recover_lost(self) -> None:
        """Hand out anew what a worker that is gone had begun."""
        from dbos._dbos import _get_dbos_instance  # DBOS leaves this to a service of its own; there is no other way
        from dbos._recovery import recover_pending_workflows

        if not self._takes_jobs:
            return
        with self._database.session() as session:
            old = now() - timedelta(seconds=LOST_S)
            lost = list(session.scalars(select(Worker.name).where(Worker.seen_at < old)))
        if lost:
            recover_pending_workflows(_get_dbos_instance(), [name for name in lost if name != self._settings.name])


def _workflow(job_id: str, attempt: int) -> str:
    return f"{job_id}.{attempt}"


def _may_be_there(process: str) -> bool:
    """Whether a process that signed on may still be at work: of this machine, that can be seen."""
    node, number, _ = process.rsplit(":", 2)
    if node != platform.node():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
