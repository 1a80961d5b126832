from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from fn3hw.errors import InputError, RunError
from fn3hw.training import Recipe, Run


def recipe(**changes: object) -> Recipe:
    return Recipe.of({"network": {"name": "mlp", "levels": ["neuron"]}, "data": {"name": "digits"}, **changes})


def test_settings_read_back(tmp_path: Path) -> None:
    chosen = recipe(epochs=7, data={"name": "digits", "root": "somewhere"})
    Run.create(tmp_path / "run", chosen)
    assert Run.open(tmp_path / "run").recipe == chosen
    assert Run.create(tmp_path / "run", chosen).recipe == chosen


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    Run.create(tmp_path, recipe(epochs=7))
    with pytest.raises(RunError, match="epochs was 7, now 8"):
        Run.create(tmp_path, recipe(epochs=8))


def test_missing_damaged_and_newer_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        Run.open(tmp_path)
    run = Run.create(tmp_path, recipe())
    with pytest.raises(RunError, match="not trained to its end"):
        run.load_weights()
    text = (tmp_path / "run.toml").read_text()
    (tmp_path / "run.toml").write_text(text.replace("format = 1", "format = 9"))
    with pytest.raises(RunError, match="format 9"):
        Run.open(tmp_path)
    (tmp_path / "run.toml").write_text("epochs = [")
    with pytest.raises(RunError, match="damaged"):
        Run.open(tmp_path)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_checkpoints_read_back(tmp_path: Path, kind: str) -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9) if kind == "sgd" else torch.optim.AdamW(layer.parameters())
    )
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    run = Run.create(tmp_path, recipe())
    run.save_checkpoint(layer.state_dict(), optimiser.state_dict(), [{"epoch": 0}])
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None and checkpoint.history == [{"epoch": 0}]
    assert all(torch.equal(checkpoint.weights[k], v) for k, v in layer.state_dict().items())
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            found = checkpoint.optimiser["state"][index].get(key)
            assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, weights = Run.create(tmp_path, recipe()), {"w": torch.ones(3)}
    optimiser = {"param_groups": [], "state": {}}
    run.save_checkpoint(weights, optimiser, [{"epoch": 0}])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            run.save_checkpoint({"w": torch.zeros(3)}, optimiser, [{"epoch": 0}, {"epoch": 1}])
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None and len(checkpoint.history) == 1 and checkpoint.weights["w"].sum() == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "run.toml"]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path, recipe())
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0half")
    with pytest.raises(RunError, match="damaged"):
        run.load_checkpoint()
