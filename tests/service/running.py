"""Servers and workers as processes of their own, that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from fn3hw.client import Client
from tests.service.conftest import free_port, wait_for

START_S = 90.0


class Running:
    """``fn3hw serve`` or ``fn3hw worker``, started and killed as often as one likes.

    Args:
        folder: of its data and its log.
        database: its address.
        port: that a server listens on; None for a worker.
        arguments: further ones.
    """

    def __init__(self, folder: Path, database: str, *arguments: str, port: int | None = None) -> None:
        self.folder, self.port = folder, port
        verb = ["worker"] if port is None else ["serve", "--port", str(port), "--requests-per-s", "0"]
        self._command = [sys.executable, "-m", "fn3hw", *verb, "--data", str(folder), *arguments]
        self._environment = {**os.environ, "FN3HW_DATABASE": database}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "process.log").read_text()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "process.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment
            )
        wait_for(self._is_up, START_S)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)

    def client(self) -> Client:
        """A client with the token that the server made when it was first started."""
        return Client(self.url, (self.folder / "token.txt").read_text().strip())

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        if self.port is None:
            return "takes jobs" in self.log
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.HTTPError:
            return False


def server_at(folder: Path, database: str, *arguments: str) -> Running:
    """A server on a free port."""
    return Running(folder, database, *arguments, port=free_port())
