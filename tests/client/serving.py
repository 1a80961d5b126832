"""A server in a thread whose jobs end at once, in what a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import uvicorn

from fn3hw.service import catalog, tokens
from fn3hw.service.api.app import create_app
from fn3hw.service.api.shared import Parts
from fn3hw.service.atlases import Atlases
from fn3hw.service.database import Database
from fn3hw.service.jobs.desk import Desk
from fn3hw.service.jobs.workshop import Workshop
from fn3hw.service.models import Device, now
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage


@dataclass
class Ending:
    """How jobs of a kind end; open ones never do."""

    document: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    state: str = "failed"


class Endings:
    """Queues whose worker is always there."""

    def __init__(self) -> None:
        self.of: dict[str, Ending] = {}
        self.put_jobs: list[str] = []

    def put(self, job_id: str, attempt: int, queue: str, device: str | None) -> None:
        self.put_jobs.append(job_id)
        ending = self.of.get(job_id.partition("-")[0])
        if ending is not None:
            self.end(job_id, attempt, ending)

    def end(self, job_id: str, attempt: int, ending: Ending) -> None:
        if self.workshop.desk.begin(job_id, attempt, "worker") is None:
            return
        stored = {path: asdict(self.workshop.storage.put(BytesIO(content))) for path, content in ending.files.items()}
        brought = {"state": ending.state, "document": ending.document, "error": ending.error, "files": stored}
        self.workshop.finish(job_id, attempt, brought)

    def take_back(self, job_id: str, attempt: int) -> None:
        pass

    workshop: Workshop


@dataclass
class Served:
    """A running server.

    Args:
        url: where it is.
        token: of scope admin.
        reader: of scope read.
        parts: of the server.
        endings: of its jobs.
    """

    url: str
    token: str = field(repr=False)
    reader: str = field(repr=False)
    parts: Parts
    endings: Endings

    def keep(self, path: str, content: bytes) -> str:
        """Make a file of the server; its SHA-256."""
        stored = self.parts.storage.put(BytesIO(content))
        with self.parts.database.session() as session:
            catalog.keep_file(session, stored, path)
        return stored.sha256


@contextmanager
def served(folder: Path, *, upload_mib: int = 512) -> Iterator[Served]:
    """A server with its data in a folder."""
    settings = Settings(data=folder, name="test", upload_mib=upload_mib)
    database = Database(settings.database_url)
    storage = Storage(settings.storage_url, folder / "incoming")
    endings = Endings()
    desk = Desk(database, endings)
    endings.workshop = Workshop(settings, database, storage, desk, threading.Event())
    with database.session() as session:
        session.add(Device(name="local", command="local", created_at=now()))
    parts = Parts(settings, database, storage, desk, Atlases(database, storage))
    config = uvicorn.Config(create_app(parts), port=0, log_level="warning", timeout_graceful_shutdown=1)
    socket, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    token, reader = (tokens.create(database, name, scope) for name, scope in (("a", "admin"), ("r", "read")))
    try:
        yield Served(f"http://127.0.0.1:{socket.getsockname()[1]}", token, reader, parts, endings)
    finally:
        server.should_exit = True
        thread.join(10)
        database.close()
