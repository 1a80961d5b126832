"""Recipes: how a network is trained, as data. Read from TOML, packaged ones by name."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fn3hw.errors import InputError, UnknownName
from fn3hw.space.gate import check_level


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Section):
    """What is trained: a reference network by name, its options, and where it is gated.

    Attributes:
        name: one of `fn3hw.space.networks.names()`.
        options: keyword options of that network.
        levels: the levels to gate.
        keep: per level the share of blocks that every subnet keeps.
        beta: scale kept blocks by their keep probability in evaluation (paper, sec. 2.2).
    """

    name: str
    options: dict[str, Any] = {}
    levels: tuple[str, ...] = ("channel", "layer")
    keep: dict[str, float] = {}
    beta: bool = False


class DataSet(_Section):
    """What it is trained on.

    Attributes:
        name: one of `fn3hw.training.datasets.names()`.
        root: folder of the files, where the data set is not part of an installed package.
        search: number of training images held out to choose subnets on.
        shift: random translation of training images by up to so many pixels.
        flip: mirror training images at random.
    """

    name: str
    root: str | None = None
    search: int = Field(2000, ge=1)
    shift: int = Field(0, ge=0)
    flip: bool = False


class Sampling(_Section):
    """Which subnets a step trains, and on what.

    Attributes:
        ordered: ordered dropout; False is plain training of the full network.
        full: also train the full network on the labels in each step, so that the largest subnet does not lag.
        smallest: also train the smallest subnet in each step; with ``full`` this is the sandwich rule.
        random: number of random ordered subnets per step.
        distill: subnets learn from the full network's soft outputs of the same step instead of from the labels.
        drop: per level the probability that a gate of that level is sampled at all in a step; otherwise it stays full.
    """

    ordered: bool = True
    full: bool = False
    smallest: bool = False
    random: int = Field(1, ge=0)
    distill: bool = False
    drop: dict[str, float] = {}


class Recipe(_Section):
    """A complete training: network, data, sampling and optimisation.

    Attributes:
        epochs: passes over the training split.
        batch_size: images per step.
        optimiser: ``sgd`` (Nesterov momentum) or ``adamw``.
        learning_rate: its peak.
        momentum: of SGD.
        weight_decay: on all parameters.
        schedule: ``cosine`` to zero, or ``step``: scaled by ``step_factor`` every ``step_epochs`` epochs.
        warm_up: epochs of linear warm-up.
        label_smoothing: in [0, 1).
        precision: ``fp32``, or ``bf16`` for autocast.
        seed: of weights, data order, augmentation and sampling.
    """

    network: Network
    data: DataSet
    sampling: Sampling = Sampling()
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=2)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["cosine", "step"] = "cosine"
    step_epochs: int = Field(10, ge=1)
    step_factor: float = Field(0.1, gt=0, le=1)
    warm_up: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(0, ge=0)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """Read a packaged recipe by name, or any TOML file by path.

        Raises:
            UnknownName: neither a packaged recipe nor a file.
            InputError: the file is no TOML or has a field that does not fit; the message names the field.
        """
        text = str(name_or_path)
        packaged = resources.files(__package__) / "recipes" / f"{text}.toml"
        if text in packaged_recipes():
            return cls.parse(packaged.read_text(), source=f"recipe {text}")
        path = Path(name_or_path)
        if not path.is_file():
            raise UnknownName("recipe", text, packaged_recipes())
        return cls.parse(path.read_text(), source=str(path))

    @classmethod
    def parse(cls, toml: str, *, source: str = "recipe") -> Recipe:
        """Read a recipe from TOML text.

        Raises:
            InputError: as `load`.
        """
        try:
            return cls.of(tomllib.loads(toml), source=source)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{source} is not valid TOML: {error}.") from error

    @classmethod
    def of(cls, settings: dict[str, Any], *, source: str = "recipe") -> Recipe:
        """A recipe from plain values.

        Raises:
            InputError: as `load`.
        """
        try:
            recipe = cls.model_validate(settings)
        except ValidationError as error:
            raise _explain(error, source) from error
        for level in (*recipe.network.levels, *recipe.network.keep, *recipe.sampling.drop):
            check_level(level)
        sampling = recipe.sampling
        if sampling.ordered and not (sampling.random or sampling.smallest):
            raise InputError(f"{source}: ordered training needs sampling.random >= 1 or sampling.smallest = true.")
        if sampling.distill and not sampling.full:
            raise InputError(f"{source}: sampling.distill needs sampling.full = true, the teacher.")
        return recipe


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with fn3hw."""
    folder = resources.files(__package__) / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _explain(error: ValidationError, source: str) -> InputError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        section: Any = (
            {"network": Network, "data": DataSet, "sampling": Sampling}.get(place[0]) if len(place) > 1 else Recipe
        )
        return UnknownName(
            f"field of {source}", ".".join(place), [*(".".join([*place[:-1], f]) for f in section.model_fields)]
        )
    return InputError(f"{source}: {'.'.join(place)}: {first['msg']}.")
