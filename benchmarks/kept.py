"""Trained networks, kept between the runs of a program."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cli.train import train_run
from fn3hw.training import Run


def trained_run(run: Run) -> OpenRun:
    """A run, trained to its end and exported where it was not yet."""
    console = Console(as_json=False)
    train_run(run, console)
    return OpenRun(run.folder, console)


def train_once(net: nn.Module, path: Path, train: Callable[[], object]) -> float:
    """Train a network in place, or load it from the file that an earlier run of the program left.

    Args:
        net: what ``train`` trains.
        path: the file.
        train: takes as long as it takes.

    Returns:
        The seconds that the training took.
    """
    if path.is_file():
        load_model(net, str(path))
        with safe_open(str(path), framework="pt") as file:
            return float(file.metadata()["seconds"])
    started = time.monotonic()
    train()
    seconds = time.monotonic() - started
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(net, str(path), metadata={"seconds": str(seconds)})
    return seconds
