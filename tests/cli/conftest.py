"""Calls of the command line, and a tiny run that they share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fn3hw.cli import main as command_line

TINY = (
    *("--set", "network.options={stem=8, stages=[[8,2,2],[12,2,1]], expand=2, head=16}"),
    *("--set", "epochs=1", "--set", "warm_up=0.0"),
)


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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny run: trained, profiled and searched, through the command line itself. Tests only read it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cli")
    run = folder / "run"
    profile = run / "profile.json"
    assert command_line.run(["train", "--recipe", "digits", "--output", str(run), *TINY]) == 0
    sizes = ["--subnets", "5", "--holdout", "3"]
    assert command_line.run(["profile", str(run), *sizes, "--output", str(profile), "--allow-noisy"]) == 0
    searched = ["--profile", str(profile), "--evaluations", "8", "--images", "60"]
    assert command_line.run(["search", str(run), *searched]) == 0
    yield run
    torch.set_num_threads(threads)


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
