"""A verb of the command line in a process of its own: what it says, how it ends, and how it is stopped.

The child holds the locks that it was started under as open files, and ends when its standard input does. So a server
that is killed leaves no child behind for long, and whoever starts the same job anew waits until that one is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from fn3hw.service.jobs import cores

RESULT = "result.json"
PATIENCE_S = 20.0
POLL_S = 0.2
INTERRUPTED = 130
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
_INHERITED_PREFIXES: Final = ("OMP_", "OPENBLAS_", "SSH_")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a verb ended.

    Args:
        status: its exit status.
        document: the JSON document on its standard output, if it is one.
    """

    status: int
    document: dict[str, Any] | None

    @property
    def error(self) -> dict[str, Any] | None:
        """The error it ended in, as the body that the API gives."""
        if self.status == 0:
            return None
        found = (self.document or {}).get("error")
        if isinstance(found, dict):
            return {**found, "exit_status": self.status}
        if self.status == INTERRUPTED:
            return {"code": "interrupted", "message": "It was interrupted.", "hint": "", "exit_status": self.status}
        how = f"was killed by signal {-self.status}" if self.status < 0 else f"ended with status {self.status}"
        hint = "Its memory may not have sufficed; see the log." if self.status == -signal.SIGKILL else "See the log."
        return {"code": "internal", "message": f"The process of the job {how}.", "hint": hint, "exit_status": 1}


@contextlib.contextmanager
def locked(
    paths: Sequence[Path], stop: Callable[[], bool], waiting: Callable[[], None]
) -> Iterator[list[IO[str]] | None]:
    """Exclusive locks on files, taken in order; None where ``stop`` said so while it waited, as ``waiting`` is told."""
    with contextlib.ExitStack() as stack:
        files: list[IO[str]] = []
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a"))
            while not _taken(file):
                if stop():
                    yield None
                    return
                waiting()
                time.sleep(POLL_S)
            files.append(file)
        yield files


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on a file."""
    try:
        with path.open() as file:
            return not _taken(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def run_verb(
    arguments: Sequence[str],
    folder: Path,
    *,
    variables: Mapping[str, str],
    held: Sequence[IO[str]],
    say: Callable[[str], None],
    tick: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
) -> Ended:
    """Run a verb in a folder until it ends, or until ``stop`` says so: then it is interrupted, and killed if need be.

    Args:
        arguments: of ``fn3hw``, without ``--json``.
        folder: where it works.
        variables: further environment variables.
        held: locked files that it keeps open.
        say: called with each line it says.
        tick: called with each of its progress objects.
        stop: asked several times a second.
    """
    with (folder / RESULT).open("wb") as result:
        process = subprocess.Popen(
            [sys.executable, "-m", "fn3hw", *arguments, "--json"],
            cwd=folder,
            env={**_environment(), **variables, "FN3HW_PROGRESS": "json", "FN3HW_TIED": "1", "NO_COLOR": "1"},
            stdin=subprocess.PIPE,
            stdout=result,
            stderr=subprocess.PIPE,
            pass_fds=[file.fileno() for file in held],
            start_new_session=True,
        )
        cores.give_all(process.pid)
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(process.stderr, lines), daemon=True)
        reader.start()
        try:
            _attend(process, lines, say, tick, stop)
        finally:
            _end(process)
            reader.join(timeout=PATIENCE_S)
    return Ended(process.returncode, _document(folder / RESULT))


def _attend(
    process: subprocess.Popen[bytes],
    lines: queue.SimpleQueue[bytes | None],
    say: Callable[[str], None],
    tick: Callable[[dict[str, Any]], None],
    stop: Callable[[], bool],
) -> None:
    while True:
        if stop():
            return
        try:
            line = lines.get(timeout=POLL_S)
        except queue.Empty:
            continue
        if line is None:
            process.wait()
            return
        told = _told(line)
        if "progress" in told:
            tick(told)
        else:
            say(told["say"])


def _told(line: bytes) -> dict[str, Any]:
    text = line.decode(errors="replace").rstrip("\n")
    if text.startswith("{"):
        with contextlib.suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict) and ("progress" in found or isinstance(found.get("say"), str)):
                return found
    return {"say": text}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the child if it still runs; kill it, and all that it started, if that does not help."""
    if process.stdin:
        process.stdin.close()
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(stream: IO[bytes] | None, lines: queue.SimpleQueue[bytes | None]) -> None:
    assert stream is not None
    for line in stream:
        lines.put(line)
    lines.put(None)


def _taken(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def _environment() -> dict[str, str]:
    """What a verb needs of this process's variables: not the server's secrets."""
    return {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
