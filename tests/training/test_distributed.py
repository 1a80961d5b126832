from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fn3hw.training import Recipe, Run, train
from fn3hw.training.distributed import Ranks

from .conftest import make_data, make_net

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys, torch
torch.set_num_threads(1)
from tests.training.conftest import make_data, make_net
from tests.training.test_distributed import recipe
from fn3hw.errors import Fn3hwError
from fn3hw.training import Run, train
chosen = recipe(**eval(sys.argv[2]))
if len(sys.argv) > 3 and os.environ["RANK"] == "1":
    chosen = chosen.replace(seed=7)
data = make_data()
try:
    train(make_net(chosen, data), data, chosen, run=Run.create(sys.argv[1], chosen) if len(sys.argv) < 4 else None)
except Fn3hwError as error:
    print(os.environ["RANK"], error.message, flush=True)
    os._exit(error.exit_status)
"""


def recipe(**changes: object) -> Recipe:
    """Without batch norm, whose statistics are those of a process's share, training is the same on any number."""
    return Recipe.of(
        {
            "network": {
                "name": "mlp",
                "options": {"hidden": [12, 8]},
                "levels": ["neuron"],
                "keep": {"neuron": 0.25},
            },
            "data": {"name": "bars"},
            "sampling": {"full": True, "distill": True, "random": 2},
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 0.05,
            **changes,
        }
    )


def torchrun(folder: Path, changes: str = "{}", *more: str) -> subprocess.Popen[str]:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
    script = folder.parent / "program.py"
    script.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, *command, str(script), str(folder), changes, *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    process = torchrun(tmp_path / "run")
    output = process.communicate(timeout=180)[0]
    assert process.returncode == 0, output
    chosen, data = recipe(), make_data()
    alone = make_net(chosen, data)
    history = train(alone, data, chosen)
    run = Run.open(tmp_path / "run")
    for name, weight in run.load_weights().items():
        assert torch.allclose(weight, alone.state_dict()[name], atol=1e-5), name
    assert [entry["loss"] for entry in run.history()] == pytest.approx([e.loss for e in history], rel=1e-4)


def test_killed_processes_go_on_from_their_checkpoint(tmp_path: Path) -> None:
    changes = "{'epochs': 60, 'checkpoint_minutes': 1e-9}"
    process = torchrun(tmp_path / "run", changes)
    deadline = time.monotonic() + 120
    while len(Run.open(tmp_path / "run").history() if (tmp_path / "run" / "run.toml").exists() else ()) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    # The workers are in sessions of their own: torchrun goes first, so that it starts none of them again.
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, workers)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    before = Run.open(tmp_path / "run")
    assert not before.is_trained and 3 <= len(before.history()) < 60
    process = torchrun(tmp_path / "run", changes)
    assert process.wait(timeout=240) == 0
    chosen, data = recipe(epochs=60, checkpoint_minutes=1e-9), make_data()
    alone = make_net(chosen, data)
    train(alone, data, chosen)
    for name, weight in Run.open(tmp_path / "run").load_weights().items():
        assert torch.allclose(weight, alone.state_dict()[name], atol=1e-3), name


def test_processes_that_disagree_are_told_so(tmp_path: Path) -> None:
    process = torchrun(tmp_path / "run", "{}", "odd")
    output = process.communicate(timeout=180)[0]
    assert process.returncode != 0
    assert "Processes 1 train another recipe, network or data set than process 0" in output
    assert not (tmp_path / "run" / "supernet.safetensors").exists()


def test_a_process_alone_shares_nothing() -> None:
    ranks, batch = Ranks(), torch.arange(10)
    assert ranks.is_first and torch.equal(ranks.share(batch), batch)
    assert sorted(torch.cat([Ranks(r, 3).share(batch) for r in range(3)]).tolist()) == batch.tolist()
