"""Calls of the command line, and a tiny run that they share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fn3hw.cli import main as command_line


class Result(SimpleNamespace):
    """Exit status, stdout and stderr of one call."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """All of stdout as the one JSON document it must be."""
        return json.loads(self.out)  # type: ignore[no-any-return]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line and collect what it says."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        status = command_line.run([str(a) for a in arguments])
        said = capsys.readouterr()
        return Result(status=status, out=said.out, err=said.err)

    return run


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def check_error(result: Result, status: int, *said: str) -> dict[str, Any]:
    """The error of a call with ``--json``: one document, a message on stderr, no traceback."""
    assert result.status == status, result.err
    error = result.document["error"]
    assert {"code", "message", "hint"} <= error.keys()
    assert "error" in result.err and "Traceback" not in result.err + result.out
    assert all(part in error["message"] + error["hint"] for part in said), error
    return error  # type: ignore[no-any-return]
