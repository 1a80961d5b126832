"""Writing files so that a kill or a full disk at any moment leaves either the old content or the new one."""

from __future__ import annotations

import fcntl
import hashlib
import io
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fn3hw.errors import InputError, RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UMASK = threading.Lock()


def sha256(data: bytes) -> str:
    """SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path | str, data: bytes) -> None:
    """Replace the content of ``path`` as a whole: written beside it, synced, then renamed.

    Raises:
        InputError: the folder cannot be written, or the disk is full; what was at ``path`` is unchanged.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_text(path: Path | str, text: str) -> None:
    """`write_bytes` of ``text`` as UTF-8."""
    write_bytes(path, text.encode())


def write_figure(path: Path | str, figure: Figure) -> None:
    """`write_bytes` of a picture as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become null, paths and others text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def append_line(path: Path | str, line: str) -> None:
    """Append one line as a single synced write. A torn last line, left by an earlier kill, is closed off first.

    Raises:
        InputError: the file cannot be written, or the disk is full; the lines before are unchanged.
    """
    target = Path(path)
    try:
        with open(target, "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            torn = False
            if end:
                file.seek(end - 1)
                torn = file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_write(target, error) from error


@contextmanager
def only_writer(path: Path | str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Within the context, this program alone may write ``path``; the lock lies beside it and ends with the program.

    Raises:
        RunError: another program, or another context of this one, writes it, and still does after ``wait_s`` seconds.
        InputError: the folder cannot be written.
    """
    target = Path(path)
    beside = target.with_name(f"{target.name}.lock")
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        lock = open(beside, "a+")  # noqa: SIM115 (closed below, where it is known to be the only one)
    except OSError as error:
        raise _cannot_write(beside, error) from error
    with lock:
        if not _locked(lock, wait_s):
            lock.seek(0)
            owner = lock.read().strip() or "another program"
            raise RunError(
                f"{target} is in use: {owner} writes to it.", hint="Wait until it has ended, or stop it, and try again."
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def _locked(lock: IO[str], wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)


def _umask() -> int:
    with _UMASK:  # of two threads that set it at the same time, the later one would take 0 for the user's
        mask = os.umask(0)
        os.umask(mask)
    return mask


def _cannot_write(target: Path, error: OSError) -> InputError:
    return InputError(
        f"Cannot write {target}: {error.strerror or error}.",
        hint=f"Free some space or choose a folder that can be written (see: df -h {target.parent}).",
    )
