"""Where a server or a worker keeps things, and what it allows."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from fn3hw.errors import InputError

DATABASE = "FN3HW_DATABASE"
"""Environment variable with the address of the database: it may hold a password, which a command line would show."""


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", platform.node()) or "host"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one process; servers and workers that belong together share ``database`` and ``storage``.

    Args:
        data: folder of this process: the embedded database, files, and the folders of running jobs.
        database: SQLAlchemy's address of a database; by default ``$FN3HW_DATABASE``, else a SQLite file in ``data``.
        storage: where files are kept: a folder, or what fsspec reads, such as ``s3://bucket/prefix``.
        name: of this process among all workers: what it had begun is its own again when it is started anew.
        upload_mib: largest upload.
        requests_per_s: of one token; 0 does not limit them.

    Raises:
        InputError: a value makes no sense.
    """

    data: Path = Path("fn3hw-data")
    database: str | None = field(default=None, repr=False)
    storage: str | None = None
    name: str = field(default_factory=_host_name)
    upload_mib: int = 512
    requests_per_s: float = 200.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.name):
            raise InputError(
                f"{self.name!r} is no name for a worker.", hint="Use letters, digits, dots, dashes and underscores."
            )
        if self.upload_mib < 1 or self.requests_per_s < 0:
            raise InputError("Uploads need at least 1 MiB, and a rate limit is not negative.")

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the database."""
        return self.database or os.environ.get(DATABASE) or f"sqlite:///{self.data.resolve() / 'fn3hw.sqlite'}"

    @property
    def storage_url(self) -> str:
        """The address of the files, as fsspec reads it."""
        return self.storage or str(self.data.resolve() / "files")

    @property
    def jobs(self) -> Path:
        """The folders of running jobs."""
        return self.data.resolve() / "jobs"

    @property
    def measured(self) -> Path:
        """Locked while this machine is measured."""
        return self.jobs / "measured.lock"
