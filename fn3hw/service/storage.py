"""Files under the SHA-256 of their content: in a folder, or wherever fsspec writes.

What is stored never changes, so a file that is there need not be sent again, and any copy is as good as the original.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from fn3hw.service.errors import TooLarge, Unavailable

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored file.

    Args:
        sha256: of its content.
        size: in bytes.
    """

    sha256: str
    size: int


class Storage:
    """Stored files.

    Args:
        url: a folder, or what fsspec reads.
        local: folder for copies and for what is on its way.

    Raises:
        Unavailable: it cannot be reached.
    """

    def __init__(self, url: str, local: Path) -> None:
        try:
            self._fs, root = url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise Unavailable(f"The storage cannot be used: {error}.") from error
        self._root = str(root).rstrip("/")
        self._local = local
        self._local.mkdir(parents=True, exist_ok=True)

    def put(self, source: IO[bytes], *, limit: int | None = None) -> Stored:
        """Store what a stream holds.

        Raises:
            TooLarge: it holds more than ``limit`` bytes; nothing is stored.
            Unavailable: it cannot be written, for example because the disk is full.
        """
        with Incoming(self, limit=limit) as incoming:
            for chunk in iter(lambda: source.read(CHUNK), b""):
                incoming.write(chunk)
            return incoming.store()

    def put_path(self, path: Path) -> Stored:
        """Store a file."""
        with path.open("rb") as source:
            return self.put(source)

    def open(self, sha256: str) -> IO[bytes]:
        """Open a stored file for reading; it can be sought in.

        Raises:
            Unavailable: it is not there, or cannot be read.
        """
        try:
            opened: IO[bytes] = self._fs.open(self._path(sha256), "rb")
        except OSError as error:
            raise Unavailable(f"The stored file {sha256[:16]} cannot be read: {type(error).__name__}.") from error
        return opened

    def chunks(self, sha256: str, start: int, size: int) -> Iterator[bytes]:
        """``size`` bytes of a stored file from ``start`` on."""
        with self.open(sha256) as source:
            source.seek(start)
            while size > 0 and (chunk := source.read(min(CHUNK, size))):
                size -= len(chunk)
                yield chunk

    def read(self, sha256: str) -> bytes:
        """All of a stored file."""
        with self.open(sha256) as source:
            return source.read()

    def copy(self, sha256: str, target: Path) -> None:
        """A copy of a stored file; what writes to it in place must not be given it (`write_bytes` replaces files).

        Raises:
            Unavailable: it is not there, or the copy cannot be written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.copy")
        try:
            temporary.unlink(missing_ok=True)
            self._fetch(sha256, temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise Unavailable(f"{target.name} cannot be copied: {error.strerror or type(error).__name__}.") from error
        finally:
            temporary.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `Unavailable` unless something can be written."""
        with Incoming(self, limit=None) as incoming:
            incoming.write(b"fn3hw")
            incoming.store()

    def _fetch(self, sha256: str, target: Path) -> None:
        if isinstance(self._fs, LocalFileSystem):
            shutil.copyfile(self._path(sha256), target)
        else:
            self._fs.get_file(self._path(sha256), str(target))

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _keep(self, temporary: str, sha256: str) -> None:
        path = self._path(sha256)
        if self._fs.exists(path):
            return
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if isinstance(self._fs, LocalFileSystem):
            beside = f"{path}.{os.path.basename(temporary)}"
            shutil.copyfile(temporary, beside)
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
        else:
            self._fs.put_file(temporary, path)


class Incoming:
    """A file on its way into a storage; left without `store`, nothing of it stays.

    Args:
        storage: where it goes.
        limit: largest size in bytes.
    """

    def __init__(self, storage: Storage, *, limit: int | None) -> None:
        self._storage, self._limit = storage, limit
        self._digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Incoming:
        handle, self.path = self._tried(lambda: tempfile.mkstemp(prefix="incoming-", dir=self._storage._local))
        self._file = os.fdopen(handle, "wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        os.unlink(self.path)

    def write(self, chunk: bytes) -> None:
        """Add bytes.

        Raises:
            TooLarge: they are too many.
            Unavailable: they cannot be written.
        """
        self.size += len(chunk)
        self.check(self.size)
        self._digest.update(chunk)
        self._tried(lambda: self._file.write(chunk))

    def check(self, size: int) -> None:
        """Raise `TooLarge` where ``size`` bytes are too many."""
        if self._limit is not None and size > self._limit:
            raise TooLarge(f"The upload is larger than the {self._limit / 2**20:.0f} MiB that this server takes.")

    def store(self) -> Stored:
        """Keep it."""
        self._tried(self._file.flush)
        sha256 = self._digest.hexdigest()
        self._tried(lambda: self._storage._keep(self.path, sha256))
        return Stored(sha256, self.size)

    @staticmethod
    def _tried(write: Callable[[], Any]) -> Any:
        try:
            return write()
        except OSError as error:
            raise Unavailable(f"A file cannot be stored: {error.strerror or type(error).__name__}.") from error
