"""The parts of a server or a worker, opened together."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI

from fn3hw.profiler.devices import LOCAL
from fn3hw.service.api.app import create_app
from fn3hw.service.api.shared import Parts
from fn3hw.service.atlases import Atlases
from fn3hw.service.database import Database
from fn3hw.service.jobs.flow import Flow
from fn3hw.service.models import Device, now
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage


class Server:
    """Database, storage and queues of one process.

    Args:
        settings: of the process.
        takes_jobs: whether it does jobs.
        devices: it takes jobs of these devices alone.

    Raises:
        InputError: a setting makes no sense.
        Unavailable: the database or the storage does not answer.
    """

    def __init__(self, settings: Settings, *, takes_jobs: bool, devices: Sequence[str] = ()) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        self.storage = Storage(settings.storage_url, settings.data.resolve() / "incoming")
        self.flow = Flow(settings, self.database, self.storage, devices=devices, takes_jobs=takes_jobs)
        with self.database.session() as session:
            if session.get(Device, LOCAL) is None:
                session.add(Device(name=LOCAL, command=LOCAL, created_at=now()))

    def app(self) -> FastAPI:
        """The application; its queues, which are open by then, are closed when it ends."""
        parts = Parts(self.settings, self.database, self.storage, self.flow.desk, Atlases(self.database, self.storage))
        return create_app(parts, closed=self.flow.close)
