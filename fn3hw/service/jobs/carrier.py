"""What a job has done so far, copied every few seconds to where any worker finds it.

A verb goes on from what its folder holds. So a job whose worker is gone for good loses no more than those seconds: the
worker that takes it up begins with the copies. A copy may end in half a line; readers of such files skip it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fn3hw.service.errors import Unavailable
from fn3hw.service.storage import Storage

EVERY_S = 5.0


class Carrier:
    """Copies of some files of a job's folder.

    Args:
        storage: keeps the copies.
        job_id: the job.
        folder: of the job on this worker.
        patterns: which files, in the order in which they are copied.
    """

    def __init__(self, storage: Storage, job_id: str, folder: Path, patterns: Sequence[str]) -> None:
        self._storage, self._job_id, self._folder, self._patterns = storage, job_id, folder, patterns
        self._seen: dict[str, tuple[int, int]] = {}
        self._last = time.monotonic()

    def fetch(self) -> None:
        """Put the copies in the folder.

        Raises:
            Unavailable: the storage cannot be read.
        """
        for name in self._storage.saved(self._job_id):
            self._storage.fetch_saved(f"{self._job_id}/{name}", self._folder / name)

    def keep(self, *, now: bool = False) -> None:
        """Copy what has changed, at most every ``EVERY_S``; a storage that is away for a while is tried again."""
        if not now and time.monotonic() - self._last < EVERY_S:
            return
        found = {}
        try:
            for path in (path for pattern in self._patterns for path in sorted(self._folder.glob(pattern))):
                name, stat = str(path.relative_to(self._folder)), path.stat()
                found[name] = stat.st_mtime_ns, stat.st_size
                if self._seen.get(name) != found[name]:
                    self._storage.save(f"{self._job_id}/{name}", path)
            for name in self._seen.keys() - found.keys():
                self._storage.forget(f"{self._job_id}/{name}")
            self._seen = found
        except (Unavailable, FileNotFoundError):
            pass
        self._last = time.monotonic()
