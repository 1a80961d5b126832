"""Two workers share the machine, so each computes in one thread; so do the programs that tests start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = (
    *("--set", "network.options={stem=8, stages=[[8,2,2],[12,2,1]], expand=2, head=16}"),
    *("--set", "epochs=1", "--set", "warm_up=0.0"),
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny run: trained, profiled and searched, through the command line itself. Tests only read it."""
    import torch

    from fn3hw.cli import main as command_line

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
