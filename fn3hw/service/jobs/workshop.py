"""Doing one job: its folder, its verb, and what is kept of them.

A job's folder stays until its rows are made. Found again after a kill, it is used as it is, since a verb goes on from
what its folder holds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from fn3hw.errors import Fn3hwError
from fn3hw.profiler.devices import LOCAL, SCHEMA
from fn3hw.service import catalog
from fn3hw.service.database import Database
from fn3hw.service.errors import Unavailable
from fn3hw.service.jobs.carrier import Carrier
from fn3hw.service.jobs.child import INTERRUPTED, Ended, locked, run_verb
from fn3hw.service.jobs.desk import Desk
from fn3hw.service.jobs.kinds import KINDS, RUN, parameters_of
from fn3hw.service.jobs.work import Outcome, Work
from fn3hw.service.models import Job, now
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage, Stored
from fn3hw.space.files import write_text

AGAIN_S, PATIENCE_S = 2.0, 600.0
REPORT_EVERY_S = 1.0
ASK_EVERY_S = 0.5
LOG = "log.txt"
_PREPARED = ".prepared"
_LOG = logging.getLogger(__name__)
Value = TypeVar("Value")


class Parked(Exception):
    """The worker is about to end; the job stays as it is, and is taken up again later."""


@dataclass(frozen=True)
class Workshop:
    """Does jobs for one worker.

    Args:
        settings: of the process.
        database: has the rows.
        storage: has the files.
        desk: is told how far a job is.
        closing: set when the process is to end.
    """

    settings: Settings
    database: Database
    storage: Storage
    desk: Desk
    closing: threading.Event

    def perform(self, job_id: str, attempt: int) -> dict[str, Any] | None:
        """Do a job up to its files; what `finish` takes, or None where there is nothing to do.

        Raises:
            Parked: the worker is to end.
        """
        begun = self._patiently(lambda: self.desk.begin(job_id, attempt, self.settings.name))
        if begun is None:
            return None
        try:
            return self._performed(*begun)
        except Parked:
            raise
        except Exception as error:
            return _failed(error)

    def finish(self, job_id: str, attempt: int, brought: Mapping[str, Any]) -> None:
        """Make the rows that a job ends in, once database and storage can be used. Done again, it changes nothing.

        Raises:
            Parked: the worker is to end.
        """
        try:
            self._patiently(lambda: self._finished(job_id, attempt, brought), for_s=PATIENCE_S)
        except Parked:
            raise
        except Exception as error:
            failed = _failed(error)
            self._patiently(lambda: self._finished(job_id, attempt, failed))

    def _patiently(self, do: Callable[[], Value], for_s: float = math.inf) -> Value:
        """What ``do`` gives; where something is unavailable, it is tried again, for so many seconds."""
        end = time.monotonic() + for_s
        while True:
            try:
                return do()
            except Unavailable as error:
                _LOG.warning("Trying again: %s", error.message)
                if self.closing.wait(AGAIN_S):
                    raise Parked from error
                if time.monotonic() > end:
                    raise

    def _finished(self, job_id: str, attempt: int, brought: Mapping[str, Any]) -> None:
        files = {path: Stored(**one) for path, one in brought["files"].items()}
        error, rows = brought["error"], None
        with self.database.reading() as session:
            asked = catalog.job(session, job_id)
        hidden = {"error", *KINDS[asked.kind].hidden}
        document = {name: value for name, value in (brought["document"] or {}).items() if name not in hidden}
        if brought["state"] != "cancelled" and (error is None or files):
            try:
                rows = parameters_of(asked).finish(self.storage, Outcome(document=document, files=files))
            except Unavailable:
                raise
            except Exception as failed:
                error = error or _body(failed)

        def end(session: Session) -> None:
            job = catalog.job(session, job_id, lock=True)
            if job.attempt != attempt or job.state != "running":
                return
            catalog.add_job_files(session, job, files)
            if rows is not None:
                rows(session, job)
            if brought["document"] is not None:
                job.result = document
            job.error = error
            job.state = "succeeded" if error is None else brought["state"]
            job.finished_at = now()

        self.database.add(end)
        if error is None:
            shutil.rmtree(self.settings.jobs / job_id, ignore_errors=True)
            self.storage.forget(job_id)

    def _performed(self, job: Job, before: str | None) -> dict[str, Any]:
        folder = self.settings.jobs / job.id
        with self.database.reading() as session:
            parameters = parameters_of(job)
            work = parameters.work(session)
        reporter = _Reporter(self.desk, job.id, folder)
        stop = _Asked(lambda: self.desk.is_cancelled(job.id), self.closing)
        paths = [folder / "lock"]
        if work.needs_quiet:
            paths.append(self.settings.jobs / "quiet.lock")
        if work.measures_here:
            paths.append(self.settings.measured)
        carrier = Carrier(self.storage, job.id, folder, work.carry)

        def attend() -> bool:
            carrier.keep()
            return stop()

        with locked(paths, stop, reporter.wait) as held:
            if held is None:
                ended = Ended(INTERRUPTED, None)
            else:
                self._prepare(folder, work, carrier, by=before)
                reporter.begin(f"{self.settings.name} begins: fn3hw {' '.join(work.arguments)}")
                variables = {"FN3HW_HOME": str(folder / "home")}
                ended = run_verb(
                    work.arguments,
                    folder,
                    variables=variables,
                    held=held,
                    say=reporter.say,
                    tick=reporter.tick,
                    stop=attend,
                )
                carrier.keep(now=True)
            reporter.say(f"It ended with status {ended.status}.")
            reporter.flush()
            if self.closing.is_set() and ended.status != 0:
                raise Parked(job.id)
            files = self._kept(folder, work)
        cancelled = stop.cancelled and ended.status != 0
        return {
            "state": "cancelled" if cancelled else "failed",
            "document": ended.document if set(ended.document or ()) != {"error"} else None,
            "error": ended.error,
            "files": {path: asdict(stored) for path, stored in files.items()},
        }

    def _prepare(self, folder: Path, work: Work, carrier: Carrier, *, by: str | None) -> None:
        """The folder of a job; where another worker did it last, with what that one had done."""
        if work.device is not None and work.device != LOCAL:
            devices = {"schema": SCHEMA, "devices": {work.device: work.command}}
            write_text(folder / "home/devices.json", json.dumps(devices))
        prepared = folder / _PREPARED
        if not prepared.exists():
            for path, sha256 in work.files.items():
                self.storage.copy(sha256, folder / path)
            texts = dict(work.texts)
            if work.archive_of is not None:
                with self.database.reading() as session:
                    texts[f"{RUN}/archive.jsonl"] = catalog.archive_of(session, work.archive_of)
            for path, text in texts.items():
                write_text(folder / path, text)
        if not prepared.exists() or by != self.settings.name:
            carrier.fetch()
        write_text(prepared, "")

    def _kept(self, folder: Path, work: Work) -> dict[str, Stored]:
        paths = [path for pattern in (*work.keep, LOG) for path in sorted(folder.glob(pattern)) if path.is_file()]
        return {str(path.relative_to(folder)): self.storage.put_path(path) for path in paths}


class _Asked:
    """Whether to stop: asked often, it asks the desk now and then."""

    def __init__(self, ask: Callable[[], bool], closing: threading.Event) -> None:
        self._ask, self._closing = ask, closing
        self._last = 0.0
        self.cancelled = False

    def __call__(self) -> bool:
        if self._closing.is_set():
            return True
        if not self.cancelled and time.monotonic() - self._last >= ASK_EVERY_S:
            self._last = time.monotonic()
            try:
                self.cancelled = self._ask()
            except Unavailable:
                return False  # a database that is away for a while does not stop a measurement
        return self.cancelled


class _Reporter:
    """Keeps the log, and tells the desk how far a job is, at most once a second."""

    def __init__(self, desk: Desk, job_id: str, folder: Path) -> None:
        self._desk, self._job_id, self._path = desk, job_id, folder / LOG
        folder.mkdir(parents=True, exist_ok=True)
        self._log = self._path.read_text(errors="replace") if self._path.exists() else ""
        self._progress: dict[str, Any] | None = None
        self._last = 0.0

    def say(self, line: str) -> None:
        text = f"{now():%Y-%m-%d %H:%M:%S} {line}\n"
        with contextlib.suppress(OSError), self._path.open("a") as log:  # a full disk is found by the verb
            log.write(text)
        self._log += text
        self._told()

    def tick(self, progress: dict[str, Any]) -> None:
        self._progress = {**progress, "at": now().isoformat()}
        self._told()

    def wait(self) -> None:
        self.tick({"progress": "waiting for this machine", "done": 0, "total": 1, "seconds_left": None})

    def begin(self, line: str) -> None:
        self.tick({"progress": "starting", "done": 0, "total": 1, "seconds_left": None})
        self.say(line)

    def flush(self) -> None:
        self._last = 0.0
        self._told()

    def _told(self) -> None:
        if time.monotonic() - self._last < REPORT_EVERY_S:
            return
        self._last = time.monotonic()
        with contextlib.suppress(Unavailable):  # it is told again with the next line
            self._desk.report(self._job_id, progress=self._progress, log=self._log)


def _failed(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError):
        error = Unavailable(f"The worker cannot use its folder: {error.strerror or type(error).__name__}.")
    elif not isinstance(error, Fn3hwError):
        _LOG.error("A bug: %s", type(error).__name__, exc_info=error)
    return {"state": "failed", "document": None, "error": _body(error), "files": {}}


def _body(error: Exception) -> dict[str, Any]:
    if isinstance(error, Fn3hwError):
        return {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "exit_status": error.exit_status,
        }
    return {
        "code": "internal",
        "message": f"What the job ended in is not what it should be: {type(error).__name__}.",
        "hint": "See the log.",
        "exit_status": 1,
    }
