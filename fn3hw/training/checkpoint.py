"""The exact state of a training, so that a resumed one equals an unbroken one.

A checkpoint is a safetensors file under a name of its own and ``checkpoint.json``, which names it and holds its digest.
The JSON file is replaced last: a kill or a full disk at any moment leaves the earlier checkpoint whole.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from fn3hw.errors import RunError
from fn3hw.space.files import sha256, write_bytes, write_text

FORMAT: Final = 1
INDEX: Final = "checkpoint.json"
Tensors = Mapping[str, torch.Tensor]


@dataclass(kw_only=True)
class Position:
    """How far a training is.

    Args:
        epoch: epochs completed.
        batch: batches completed of the epoch after them.
        loss_sum: sum of the loss over those batches.
        epoch_seconds: training time of those batches.
        history: one entry per completed epoch.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    epoch_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def save(folder: Path, position: Position, net: nn.Module, optimiser: torch.optim.Optimizer, *, digest: str) -> None:
    """Write a checkpoint, then remove the one before.

    Args:
        folder: the run's folder.
        position: how far the training is.
        net: the network.
        optimiser: of the network's parameters.
        digest: of all that the training depends on; `load` refuses another.

    Raises:
        InputError: the disk is full or cannot be written; the earlier checkpoint is unchanged.
    """
    data = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in _state(net, optimiser).items()})
    name = f"checkpoint-{position.epoch:04d}-{position.batch:07d}.safetensors"
    write_bytes(folder / name, data)
    index = {"format": FORMAT, "tensors": name, "sha256": sha256(data), "training": digest, **asdict(position)}
    write_text(folder / INDEX, json.dumps(index, indent=1) + "\n")
    _remove_tensors(folder, keep=name)


def load(folder: Path, net: nn.Module, optimiser: torch.optim.Optimizer, *, digest: str) -> Position | None:
    """Restore a run's checkpoint into the network, the optimiser and torch's random numbers.

    Returns:
        Where the training stopped, or None where there is no checkpoint.

    Raises:
        RunError: the checkpoint is damaged, from a newer version, or of another training.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        version = int(index["format"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, error) from error
    if version > FORMAT:
        raise RunError(
            f"The checkpoint in {folder} has format {version}; this fn3hw reads up to {FORMAT}.", hint="Upgrade fn3hw."
        )
    if index.get("training") != digest:
        raise RunError(
            f"The checkpoint in {folder} is of another recipe, network or data set.",
            hint="Go on with the same ones, or train into another folder.",
        )
    try:
        data = (folder / index["tensors"]).read_bytes()
        if sha256(data) != index["sha256"]:
            raise _damaged(folder, f"the content of {index['tensors']} has changed")
        position = Position(**{key: index[key] for key in Position.__dataclass_fields__})
        _restore(load_tensors(data), net, optimiser)
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise _damaged(folder, error) from error
    return position


def remove(folder: Path) -> None:
    """Delete the checkpoint of a training that is complete."""
    (folder / INDEX).unlink(missing_ok=True)
    _remove_tensors(folder, keep=None)


def _state(net: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {f"network/{name}": tensor for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimiser/{name}/{key}"] = value
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    return tensors


def _restore(tensors: Tensors, net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    net.load_state_dict(_part(tensors, "network/"))
    for name, parameter in net.named_parameters():
        for key, value in _part(tensors, f"optimiser/{name}/").items():
            # In the parameter's own memory layout: fused optimisers walk both side by side.
            like = parameter.detach() if value.shape == parameter.shape else value.to(parameter.device)
            optimiser.state[parameter][key] = torch.empty_like(like).copy_(value)
    torch.set_rng_state(tensors["random/cpu"])
    if torch.cuda.is_available() and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"])


def _part(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _remove_tensors(folder: Path, *, keep: str | None) -> None:
    for path in folder.glob("checkpoint-*.safetensors"):
        if path.name != keep:
            with contextlib.suppress(OSError):
                path.unlink()


def _damaged(folder: Path, reason: object) -> RunError:
    return RunError(
        f"The checkpoint in {folder} is damaged: {reason}.",
        hint=f"Remove {folder / INDEX} to train from the start, or train into another folder.",
    )
