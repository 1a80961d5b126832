"""Recipes: how a network is trained, as data. Read from TOML, packaged ones by name."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fn3hw.errors import InputError, UnknownName
from fn3hw.space.gate import check_level

Level = Annotated[str, AfterValidator(check_level)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Quantization(_Section):
    """How weights are quantized at level ``bit`` (paper, sec. 2.4 and 5).

    Attributes:
        levels: the positive levels in the order in which blocks add them; the paper's are 1, 2, 4, 8.
        full_precision: a last block on top of them, with which weights are not quantized at all.
        groups: number of quantizers, each for a run of consecutive layers; absent: one per layer.
        soft: temperature of sigmoid steps at the end of training, to which it rises linearly from none; absent: hard
            steps with a straight-through gradient.
    """

    levels: tuple[int, ...] = (1, 2, 4, 8)
    full_precision: bool = False
    groups: int | None = Field(None, ge=1)
    soft: float | None = Field(None, gt=0)


class Network(_Section):
    """What is trained: a reference network by name, its options, and where it is gated.

    Attributes:
        name: one of `fn3hw.space.networks.names()`.
        options: keyword options of that network.
        levels: the levels to gate.
        keep: per level the share of blocks that every subnet keeps.
        beta: scale kept blocks by their keep probability in evaluation (paper, sec. 2.2).
        one_layer_gate: all residual branches form one gate; otherwise those of each residual stream do.
        bits: how weights are quantized, where ``levels`` has ``bit``.
        start_from: a run folder whose trained weights the training starts from; absent: fresh ones.
    """

    name: str
    options: dict[str, Any] = {}
    levels: tuple[Level, ...] = Field(("channel", "layer"), min_length=1)
    keep: dict[Level, Share] = {}
    beta: bool = False
    one_layer_gate: bool = False
    bits: Quantization | None = None
    start_from: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.bits is not None and "bit" not in self.levels:
            raise ValueError('bits are for level "bit", which levels does not have')
        return self


class DataSet(_Section):
    """What it is trained on.

    Attributes:
        name: one of `fn3hw.training.loading.names()`.
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
        uniform: a random subnet keeps the same share of every gate, as in US-Net; otherwise each gate draws its own.
        drop: per level the probability that a gate of that level is sampled at all in a step; otherwise it stays full.
    """

    ordered: bool = True
    full: bool = False
    smallest: bool = False
    random: int = Field(1, ge=0)
    distill: bool = False
    uniform: bool = False
    drop: dict[Level, Share] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ordered and not (self.random or self.smallest):
            raise ValueError("ordered training needs random >= 1 or smallest = true")
        if self.ordered and self.distill and not self.full:
            raise ValueError("distill needs full = true: the full network is the teacher")
        return self

    @property
    def trains_full(self) -> bool:
        """Whether every step trains the full network."""
        return self.full or not self.ordered


class Recipe(_Section):
    """A complete training: network, data, sampling and optimisation.

    Attributes:
        epochs: passes over the training split.
        batch_size: images per step.
        optimiser: ``sgd`` (Nesterov momentum), ``adam`` or ``adamw``.
        learning_rate: its peak.
        momentum: of SGD.
        weight_decay: on all parameters.
        schedule: ``cosine`` to zero, ``step``: scaled by ``step_factor`` every ``step_epochs`` epochs, or before the
            epochs in ``step_at``, or ``constant``.
        warm_up: epochs of linear warm-up.
        label_smoothing: in [0, 1).
        clip_gradient: largest norm of a step's gradient; not limited where absent.
        precision: ``fp32``, ``bf16`` for autocast, or ``auto``: bf16 on a GPU, fp32 on a CPU.
        compile: compile the passes of the full network (torch.compile). Random subnets stay as they are: each has
            shapes of its own, and would be compiled anew.
        seed: of weights, data order, augmentation and sampling.
        evaluate: number of images of the search split that the full network is tested on after every epoch; 0 for none.
        checkpoint_minutes: longest time between two checkpoints; every epoch ends with one.
    """

    network: Network
    data: DataSet
    sampling: Sampling = Sampling()
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=2)
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_epochs: int = Field(10, ge=1)
    step_at: tuple[int, ...] = ()
    step_factor: float = Field(0.1, gt=0, le=1)
    warm_up: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_gradient: float | None = Field(None, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    seed: int = Field(0, ge=0)
    evaluate: int = Field(0, ge=0)
    checkpoint_minutes: float = Field(5.0, gt=0)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """Read a packaged recipe by name, or any TOML file by path.

        Raises:
            UnknownName: neither a packaged recipe nor a file.
            InputError: the file is no TOML or has a field that does not fit; the message names the field.
        """
        text = str(name_or_path)
        if text in packaged_recipes():
            packaged = resources.files(__package__) / "recipes" / f"{text}.toml"
            return cls.parse(packaged.read_text(encoding="utf-8"), source=f"recipe {text}")
        path = Path(name_or_path)
        if not path.is_file():
            raise UnknownName("recipe", text, packaged_recipes())
        try:
            return cls.parse(path.read_text(encoding="utf-8"), source=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}.", hint="A recipe is a TOML file in UTF-8.") from error

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
            return cls.model_validate(settings)
        except ValidationError as error:
            raise _explain(error, source) from error

    def settings(self) -> dict[str, Any]:
        """Plain values that `of` reads back."""
        return self.model_dump(mode="json", exclude_none=True)

    def replace(self, **changes: Any) -> Recipe:
        """A checked copy with other values; those of a section by its name, as ``sampling={"ordered": False}``.

        Raises:
            InputError: as `load`.
        """
        settings = self.settings()
        for key, value in changes.items():
            merge = isinstance(value, dict) and isinstance(settings.get(key), dict)
            settings[key] = {**settings[key], **value} if merge else value
        return self.of(settings)


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with fn3hw; ``paper/...`` has the paper's settings.

    ``removal/...`` are its experiments scaled to two cores, ``baselines/...`` what they are compared with.
    """
    folder = resources.files(__package__) / "recipes"
    groups = [("", folder), *((f"{name}/", folder / name) for name in ("baselines", "paper", "removal"))]
    found = [prefix + entry.name for prefix, group in groups for entry in group.iterdir()]
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


_SECTIONS: dict[str, type[_Section]] = {"network": Network, "data": DataSet, "sampling": Sampling}


def _explain(error: ValidationError, source: str) -> InputError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "[key]"]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UnknownName):
        return cause
    if first["type"] == "extra_forbidden":
        section = _SECTIONS[place[0]] if len(place) > 1 else Recipe
        prefix = f"{place[0]}." if len(place) > 1 else ""
        return UnknownName(
            f"field of {source}", ".".join(place), [f"{prefix}{field}" for field in section.model_fields]
        )
    message = first["msg"].removeprefix("Value error, ")
    given = f", not {first['input']!r}" if first["type"] not in ("missing", "value_error") else ""
    return InputError(f"{source}: {'.'.join(place)}: {message}{given}.")
