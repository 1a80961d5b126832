"""A run folder: the settings of a training and what it has learned, on disk.

``run.toml`` holds the effective settings, ``supernet.safetensors`` the weights of a training that is complete,
``history.jsonl`` one line per epoch; `fn3hw.training.checkpoint` keeps what an unfinished training needs.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from fn3hw.errors import RunError
from fn3hw.space.files import write_bytes, write_text
from fn3hw.training import toml
from fn3hw.training.recipe import Recipe

RUN_FORMAT: Final = 1
SETTINGS, WEIGHTS, HISTORY = "run.toml", "supernet.safetensors", "history.jsonl"


class Run:
    """An open run folder. Use `create` or `open`.

    Args:
        folder: where it is.
        recipe: its effective settings.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def create(cls, folder: Path | str, recipe: Recipe) -> Run:
        """Open a run folder for a recipe, making it where it does not exist: an interrupted training goes on.

        Raises:
            RunError: the folder holds a run of other settings, or something else.
            InputError: the folder cannot be written.
        """
        path = Path(folder)
        if (path / SETTINGS).exists():
            run = cls.open(path)
            if run.recipe != recipe:
                raise RunError(
                    f"{path} is a run of other settings: {_difference(run.recipe, recipe)}.",
                    hint="Give another --output folder, or remove this one.",
                )
            return run
        # A kill while run.toml was written leaves its temporary file alone in the folder.
        if path.exists() and (not path.is_dir() or any(p.suffix != ".tmp" for p in path.iterdir())):
            raise RunError(f"{path} exists and is no run folder.", hint="Give a folder that is new or empty.")
        write_text(path / SETTINGS, toml.dumps({"format": RUN_FORMAT, **recipe.settings()}))
        return cls(path, recipe)

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open an existing run folder.

        Raises:
            RunError: it is missing, half written, damaged or from a newer version.
        """
        path = Path(folder) / SETTINGS
        hint = f"Train it: fn3hw train --recipe NAME --output {folder}"
        if not path.is_file():
            missing = "is no run folder, or half written" if Path(folder).exists() else "does not exist"
            raise RunError(f"{folder} {missing}: it has no {SETTINGS}.", hint=hint)
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
            version = int(settings.pop("format"))
        except KeyError as error:
            raise RunError(f"{path} is damaged: it gives no format.", hint=hint) from error
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}.", hint=hint) from error
        if version > RUN_FORMAT:
            raise RunError(f"{path} has format {version}; this fn3hw reads up to {RUN_FORMAT}.", hint="Upgrade fn3hw.")
        return cls(Path(folder), Recipe.of(settings, source=str(path)))

    @property
    def is_trained(self) -> bool:
        """Whether the training is complete."""
        return (self.folder / WEIGHTS).is_file()

    def save_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Write ``supernet.safetensors``.

        Raises:
            InputError: it cannot be written, for example because the disk is full.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        write_bytes(self.folder / WEIGHTS, save_tensors(tensors))

    def load_weights(self) -> dict[str, torch.Tensor]:
        """Read ``supernet.safetensors``.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.folder / WEIGHTS
        hint = f"Go on with its training: fn3hw train --output {self.folder}"
        if not path.is_file():
            raise RunError(f"{self.folder} is not trained to its end: it has no {path.name}.", hint=hint)
        try:
            return load_tensors(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} is damaged: {error}.", hint="Remove it and train again.") from error

    def history(self) -> list[dict[str, Any]]:
        """The entries of ``history.jsonl``; a line torn by a kill is left out."""
        path = self.folder / HISTORY
        entries = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return entries

    def replace_history(self, entries: list[dict[str, Any]]) -> None:
        """Make ``history.jsonl`` hold these entries."""
        if self.history() != entries:
            write_text(self.folder / HISTORY, "".join(f"{json.dumps(entry)}\n" for entry in entries))


def _difference(old: Recipe, new: Recipe) -> str:
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return ", ".join(f"{key} was {before.get(key)!r}, now {after.get(key)!r}" for key in changed[:3])


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
