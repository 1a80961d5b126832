"""Files under the SHA-256 of their content: in a folder, or wherever fsspec writes.

What is stored never changes, so a file that is there need not be sent again, and any copy is as good as the original.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from fn3hw.errors import Fn3hwError
from fn3hw.service.errors import TooLarge, Unavailable

CHUNK = 1 << 20
LEFTOVER_S = 86_400.0
_SAVED, _PARTIAL = "saved", ".partial"


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
            # A listing that is remembered would hide what other processes write.
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError, OSError) as error:
            raise Unavailable(f"The storage cannot be used: {error}.") from error
        self._root = str(root).rstrip("/")
        self._local = local
        self._local.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()

    def put(self, source: IO[bytes]) -> Stored:
        """Store what a stream holds.

        Raises:
            Unavailable: it cannot be written, for example because the disk is full.
        """
        with Incoming(self, limit=None) as incoming:
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
        with _explained(f"The stored file {sha256[:16]} cannot be read"):
            opened: IO[bytes] = self._fs.open(self._path(sha256), "rb")
            return opened

    def chunks(self, sha256: str, start: int, size: int) -> Iterator[bytes]:
        """``size`` bytes of a stored file from ``start`` on.

        Raises:
            Unavailable: it is not there, or cannot be read.
        """
        return _chunks(self.open(sha256), start, size)

    def read(self, sha256: str) -> bytes:
        """All of a stored file.

        Raises:
            Unavailable: it is not there, or cannot be read.
        """
        with self.open(sha256) as source, _explained(f"The stored file {sha256[:16]} cannot be read"):
            return source.read()

    def copy(self, sha256: str, target: Path) -> None:
        """A copy of a stored file; what writes to it in place must not be given it (`write_bytes` replaces files).

        Raises:
            Unavailable: it is not there, or the copy cannot be written.
        """
        self._copy(self._path(sha256), target)

    def save(self, name: str, path: Path) -> None:
        """Keep a copy of a file under a name, in place of the one before.

        Raises:
            Unavailable: it cannot be written.
        """
        target = f"{self._root}/{_SAVED}/{name}"
        with _explained(f"{path.name} cannot be stored"):
            self._write(str(path), target)

    def saved(self, folder: str) -> list[str]:
        """The names below a folder of those that `save` was given."""
        root = f"{self._root}/{_SAVED}/{folder}"
        with _explained("The storage cannot be read"):
            if not self._fs.exists(root):
                return []
            return sorted(str(path)[len(root) + 1 :] for path in self._fs.find(root) if not _is_partial(str(path)))

    def fetch_saved(self, name: str, target: Path) -> None:
        """A copy of what was saved under a name.

        Raises:
            Unavailable: it is not there, or the copy cannot be written.
        """
        self._copy(f"{self._root}/{_SAVED}/{name}", target)

    def forget(self, name: str) -> None:
        """Delete what was saved under a name, or below it."""
        path = f"{self._root}/{_SAVED}/{name}"
        with _explained("The storage cannot be written"):
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder of this machine, for a while."""
        with _explained("There is no room for files"):
            made = tempfile.TemporaryDirectory(prefix="folder-", dir=self._local)
        with made as path:
            yield Path(path)

    def check(self) -> None:
        """Raise `Unavailable` unless something can be written."""
        with Incoming(self, limit=None) as incoming:
            incoming.write(b"fn3hw")
            incoming.store()

    def _copy(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.copy")
        with _explained(f"{target.name} cannot be copied"):
            try:
                if isinstance(self._fs, LocalFileSystem):
                    shutil.copyfile(path, temporary)
                else:
                    self._fs.get_file(path, str(temporary))
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed long ago had on its way."""
        for path in self._local.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > LEFTOVER_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _keep(self, temporary: str, sha256: str) -> None:
        path = self._path(sha256)
        if not self._fs.exists(path):
            self._write(temporary, path)

    def _write(self, source: str, path: str) -> None:
        """Put a file in its place as a whole."""
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if isinstance(self._fs, LocalFileSystem):
            beside = Path(f"{path}.{secrets.token_hex(4)}{_PARTIAL}")
            try:
                shutil.copyfile(source, beside)
                with beside.open("rb") as file:
                    os.fsync(file.fileno())
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
        else:
            self._fs.put_file(source, path)


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
        with contextlib.suppress(OSError):  # what a full disk does not take is not wanted any more
            self._file.close()
        Path(self.path).unlink(missing_ok=True)

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

    def flush(self) -> None:
        """Have its file hold all that was written."""
        self._tried(self._file.flush)

    def store(self) -> Stored:
        """Keep it."""
        self.flush()
        sha256 = self._digest.hexdigest()
        self._tried(lambda: self._storage._keep(self.path, sha256))
        return Stored(sha256, self.size)

    @staticmethod
    def _tried(write: Callable[[], Any]) -> Any:
        with _explained("A file cannot be stored"):
            return write()


def _chunks(source: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    with source:
        source.seek(start)
        while size > 0 and (chunk := source.read(min(CHUNK, size))):
            size -= len(chunk)
            yield chunk


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise `Unavailable` where reading or writing files fails: a storage elsewhere has errors of its own kinds."""
    try:
        yield
    except Fn3hwError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Unavailable(f"{what}: {reason}.") from error


def _is_partial(path: str) -> bool:
    return path.endswith(_PARTIAL)
