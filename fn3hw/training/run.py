"""A run folder: the settings of a training and what it has learned so far, on disk.

``run.toml`` holds the effective settings. A checkpoint is one safetensors file (weights, optimiser state) whose header
carries the history, so that it is written and replaced as a whole; ``supernet.safetensors`` holds the weights alone.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from fn3hw.errors import RunError
from fn3hw.space.files import write_bytes, write_text
from fn3hw.training.recipe import Recipe

RUN_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What training goes on from: weights, the optimiser's state, and one entry of history per finished epoch."""

    weights: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    history: list[dict[str, Any]]


class Run:
    """An open run folder. Use `create` or `open`.

    Args:
        folder: where it is.
        recipe: its effective settings.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe

    @classmethod
    def create(cls, folder: Path | str, recipe: Recipe) -> Run:
        """Open a run folder for a recipe, making it where it does not exist: an interrupted training goes on.

        Raises:
            RunError: the folder holds a run of other settings.
            InputError: the folder cannot be written.
        """
        path = Path(folder)
        if (path / "run.toml").exists():
            run = cls.open(path)
            if run.recipe != recipe:
                raise RunError(
                    f"{path} is a run of other settings: {_difference(run.recipe, recipe)}.",
                    hint="Give another --output folder, or remove this one.",
                )
            return run
        write_text(path / "run.toml", to_toml({"format": RUN_FORMAT, **recipe.model_dump(exclude_none=True)}))
        return cls(path, recipe)

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open an existing run folder.

        Raises:
            RunError: it is missing, damaged or from a newer version.
        """
        path = Path(folder) / "run.toml"
        hint = f"Train it: fn3hw train --recipe NAME --output {folder}"
        if not path.is_file():
            raise RunError(f"{folder} is no run folder: it has no run.toml.", hint=hint)
        try:
            settings = tomllib.loads(path.read_text())
            version = int(settings.pop("format"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}.", hint=hint) from error
        if version > RUN_FORMAT:
            raise RunError(f"{path} has format {version}; this fn3hw reads up to {RUN_FORMAT}.", hint="Upgrade fn3hw.")
        return cls(Path(folder), Recipe.of(settings, source=str(path)))

    @property
    def is_trained(self) -> bool:
        """Whether every epoch of the recipe is done."""
        checkpoint = self.load_checkpoint()
        return checkpoint is not None and len(checkpoint.history) >= self.recipe.epochs

    def save_checkpoint(
        self, weights: Mapping[str, torch.Tensor], optimiser: dict[str, Any], history: list[dict[str, Any]]
    ) -> None:
        """Replace the checkpoint; the one before stays until the new one is complete.

        Raises:
            InputError: it cannot be written, for example because the disk is full.
        """
        tensors = {f"weights/{name}": tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        scalars: dict[str, Any] = {"param_groups": optimiser["param_groups"], "state": {}}
        for index, state in optimiser["state"].items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimiser/{index}/{key}"] = value.detach().cpu().contiguous()
                elif value is not None:
                    scalars["state"].setdefault(str(index), {})[key] = value
        header = {"history": json.dumps(history), "optimiser": json.dumps(scalars)}
        write_bytes(self.folder / "checkpoint.safetensors", save_tensors(tensors, metadata=header))

    def load_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint, or None where there is none yet.

        Raises:
            RunError: it is damaged.
        """
        path = self.folder / "checkpoint.safetensors"
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata()
            tensors = load_tensors(path.read_bytes())
            history, scalars = json.loads(header["history"]), json.loads(header["optimiser"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}.", hint="Remove it; training starts again.") from error
        state: dict[int, dict[str, Any]] = {int(i): dict(values) for i, values in scalars["state"].items()}
        weights = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "weights":
                weights[rest] = tensor
            else:
                index, _, key = rest.partition("/")
                state.setdefault(int(index), {})[key] = tensor
        return Checkpoint(weights, {"state": state, "param_groups": scalars["param_groups"]}, history)

    def save_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Write ``supernet.safetensors``."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        write_bytes(self.folder / "supernet.safetensors", save_tensors(tensors))

    def load_weights(self) -> dict[str, torch.Tensor]:
        """Read ``supernet.safetensors``.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.folder / "supernet.safetensors"
        hint = f"Go on with its training: fn3hw train --output {self.folder}"
        if not path.is_file():
            raise RunError(f"{self.folder} is not trained to its end: it has no {path.name}.", hint=hint)
        try:
            return load_tensors(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} is damaged: {error}.", hint=hint) from error


def to_toml(settings: Mapping[str, Any]) -> str:
    """Nested plain values as TOML text, tables after the values of their parent."""
    lines: list[str] = []
    _write_table(settings, (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _write_table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    if path:
        lines += ["", f"[{'.'.join(_key(part) for part in path)}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            _write_table(value, (*path, key), lines)


def _key(text: str) -> str:
    return text if text.replace("_", "").replace("-", "").isalnum() and text.isascii() else json.dumps(text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(str(value), ensure_ascii=False)


def _difference(old: Recipe, new: Recipe) -> str:
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return ", ".join(f"{key} was {before.get(key)!r}, now {after.get(key)!r}" for key in changed[:3])


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
