"""Databases of both kinds, and a server without workers, in this process."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from fn3hw.service.api.shared import Parts
from fn3hw.service.atlases import Atlases
from fn3hw.service.database import Database
from fn3hw.service.jobs.desk import Desk
from fn3hw.service.models import Device, now
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage

KINDS = ("sqlite", "postgresql")
SLOWLY = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))
"""Kinds for tests that start servers: CI runs those on PostgreSQL, too, after the default suite."""


class Hands:
    """Queues that only write down what they are told."""

    def __init__(self) -> None:
        self.put_jobs: list[tuple[str, int, str, str | None]] = []
        self.taken_back: list[tuple[str, int]] = []

    def put(self, job_id: str, attempt: int, queue: str, device: str | None) -> None:
        self.put_jobs.append((job_id, attempt, queue, device))

    def take_back(self, job_id: str, attempt: int) -> None:
        self.taken_back.append((job_id, attempt))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL of this test run; it lives as long as the run."""
    programs = [*glob("/usr/lib/postgresql/*/bin"), *filter(None, [os.path.dirname(shutil.which("initdb") or "")])]
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    program, folder = Path(programs[-1]), Path(tempfile.mkdtemp(prefix="fn3hw-postgres-"))
    as_user = {"user": "postgres"} if os.getuid() == 0 else {}
    if as_user:  # it refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data, port = folder / "data", free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **as_user}
    subprocess.run([program / "initdb", "-D", data, "-A", "trust", "-U", "fn3hw", "-E", "UTF8"], check=True, **quiet)  # type: ignore[call-overload]
    settings = [
        "-c",
        "fsync=off",
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"port={port}",
        "-c",
        "max_connections=200",
    ]
    server = subprocess.Popen([program / "postgres", "-D", data, "-k", folder, *settings], **quiet)  # type: ignore[call-overload]
    url = f"postgresql+psycopg://fn3hw@127.0.0.1:{port}/postgres"
    try:
        wait_for(lambda: answers(url), 30)
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # it does not wait for those who are connected
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        with create_engine(url).connect() as connection:
            connection.execute(text("SELECT 1"))
        return True
    except Exception:
        return False


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of an empty database."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/rows.sqlite"
    url = str(request.getfixturevalue("postgres"))
    name = f"test_{time.time_ns()}"
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    return url.replace("/postgres", f"/{name}")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    with opened.session() as session:
        session.add(Device(name="local", command="local", created_at=now()))
    yield opened
    opened.close()


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def parts(database: Database, hands: Hands, tmp_path: Path) -> Parts:
    """A server's parts; nobody takes its jobs."""
    settings = Settings(data=tmp_path / "data", database=database.url, upload_mib=8, requests_per_s=0)
    storage = Storage(settings.storage_url, tmp_path / "incoming")
    return Parts(settings, database, storage, Desk(database, hands), Atlases(database, storage))


def wait_for(ready: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"nothing after {seconds} s"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
