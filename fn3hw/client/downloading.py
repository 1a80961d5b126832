"""Files of a server, fetched by their SHA-256: resumed where they stopped, checked, and only then given their name."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from fn3hw.client.connection import PAUSES_S, Connection
from fn3hw.client.errors import Unreachable
from fn3hw.errors import InputError, ServerError


def download(connection: Connection, sha256: str, path: Path) -> Path:
    """Fetch a file.

    What arrived of it stays beside ``path`` until all of it is there, so that a later call goes on from it.

    Raises:
        UnknownName: the server has no such file.
        Unreachable: it does not answer.
        ServerError: what it sent is not the file, even when asked for from its beginning.
        InputError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{sha256[:16]}.part")
    try:
        if path.is_file() and _digest(path) == sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            _fetch(connection, sha256, part)
            if _digest(part) == sha256:
                os.replace(part, path)
                return path
            part.unlink()  # what an earlier call left there may have been wrong: once more, from the beginning
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or type(error).__name__}.") from error
    raise ServerError(
        f"{connection.url} sent a file for {path.name} whose SHA-256 is not {sha256[:16]}…; it was thrown away.",
        hint="Try again; if it stays so, a proxy changes it, or the server's storage is damaged.",
    )


def _fetch(connection: Connection, sha256: str, part: Path) -> None:
    """Append what ``part`` lacks, asking again as long as bytes arrive."""
    tries = 0
    while True:
        had = part.stat().st_size if part.exists() else 0
        try:
            _append(connection, sha256, part, had)
            return
        except Unreachable:
            tries = 0 if part.exists() and part.stat().st_size > had else tries + 1
            if tries > len(PAUSES_S):
                raise
            time.sleep(PAUSES_S[max(0, tries - 1)])


def _append(connection: Connection, sha256: str, part: Path, had: int) -> None:
    headers = {"Range": f"bytes={had}-"} if had else {}
    with connection.stream(f"/artifacts/{sha256}", headers=headers) as response:
        if response.status_code == 416:  # nothing lies beyond what is there
            return
        goes_on = response.headers.get("content-range", "").startswith(f"bytes {had}-")
        with part.open("ab" if response.status_code == 206 and goes_on else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
