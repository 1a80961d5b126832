"""The profile file: a device, its environment, and the raw measurements taken there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fn3hw.errors import NoisyMeasurement, ProfileError
from fn3hw.profiler.device import device_id
from fn3hw.profiler.quantity import Quantity
from fn3hw.profiler.statistics import Sensitivity
from fn3hw.space.files import write_text
from fn3hw.space.subnet import SearchSpace

SCHEMA: Literal["fn3hw.profile/1"] = "fn3hw.profile/1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RoundRecord(_Part):
    """One subnet timed in alternation with the reference in one fresh process."""

    number: int = Field(ge=0, description="Round, from 0.")
    reference_ns: tuple[int, ...] = Field(min_length=1, description="Samples of the reference, wall time, ns per run.")
    candidate_ns: tuple[int, ...] = Field(min_length=1, description="Samples of the subnet, alternating with those.")
    reference_cpu_ns: tuple[int, ...] = Field(description="The reference's samples on the thread's own clock.")
    candidate_cpu_ns: tuple[int, ...] = Field(description="The subnet's samples on the thread's own clock.")
    clock: Literal["cpu", "wall", "instructions"] = Field(description="The clock that the ratio is taken on.")
    batches: tuple[int, ...] = Field(description="Runs per sample of the reference and of the subnet.")
    load_ms: float = Field(description="Time to open the file with ONNX Runtime warm.")
    conditions: dict[str, Any] = Field(description="What the device's counters saw meanwhile.")
    faults: tuple[str, ...] = Field(description="What disturbed the round; empty where nothing did.")
    rejected: int = Field(ge=0, description="Disturbed attempts of this round that were thrown away.")
    at_s: float | None = Field(
        default=None, description="When it ended: seconds since 1970 on the machine that asked. Older files lack it."
    )
    reference_instructions: tuple[int, ...] = Field((), description="The reference's instructions per run, if counted.")
    candidate_instructions: tuple[int, ...] = Field((), description="The subnet's instructions per run, if counted.")

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> RoundRecord:
        """What a file keeps of a round as it was measured (`fn3hw.profiler.measuring.Round`)."""
        return cls(**{name: value for name, value in measured.items() if name in cls.model_fields})

    @property
    def samples(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Samples of the reference and of the subnet, ns or instructions per run, on the clock that counts."""
        if self.clock == "instructions":
            return self.reference_instructions, self.candidate_instructions
        if self.clock == "cpu":
            return self.reference_cpu_ns, self.candidate_cpu_ns
        return self.reference_ns, self.candidate_ns


class Measurement(_Part):
    """What was measured of one subnet."""

    subnet: str = Field(description="Id of the subnet in the network's search space.")
    counts: dict[str, int] = Field(description="Blocks kept per gate.")
    role: Literal["fit", "holdout"] = Field(description="Whether it may be fitted on, or is kept to test on.")
    size_bytes: int = Field(gt=0, description="Bytes of the ONNX file.")
    ratio: float = Field(gt=0, description="Time, or instructions, relative to the reference's, in a quiet moment.")
    ratio_low: float = Field(gt=0, description="Lower end of the 90% bootstrap interval of ratio.")
    ratio_high: float = Field(gt=0, description="Upper end of the 90% bootstrap interval of ratio.")
    latency_ms: float | None = Field(
        gt=0, description="ratio times the reference's median over the session; null on an emulated device."
    )
    latency_p10_ms: float | None = Field(gt=0, description="10th percentile of the samples of its rounds.")
    latency_p50_ms: float | None = Field(gt=0, description="Median of them.")
    latency_p90_ms: float | None = Field(gt=0, description="90th percentile of them: each round's about its median.")
    latency_p99_ms: float | None = Field(None, gt=0, description="99th percentile of the samples. Older files lack it.")
    rounds: tuple[RoundRecord, ...] = Field(min_length=1)
    kernels: dict[str, float] = Field(
        description="Microseconds per node of the file, and per node that the runtime inserted: ~OPERATOR@NODE_BEFORE."
    )
    operators: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Operators of the kernels whose time each entry of kernels is. Older files lack it.",
    )
    peak_mib: float = Field(description="Peak resident memory of a fresh process, arena on.")
    peak_mib_no_arena: float = Field(description="The same with the arena off.")
    runtime_mib: float = Field(description="Resident memory of that process before the model was opened.")
    increment_mib: float = Field(description="Peak above runtime_mib, arena on.")
    load_ms: float = Field(description="Time to open the file in a fresh process.")
    first_run_ms: float = Field(description="Time of the first run in a fresh process.")


class Network(_Part):
    """The network whose subnets were measured."""

    digest: str = Field(description="Of graph, shapes and search space; not of the weights' values.")
    name: str
    input_shape: tuple[int, ...] = Field(description="Shape of one input, without the batch axis.")
    gates: list[dict[str, Any]] = Field(description="The search space.")
    units: dict[str, tuple[str, ...]] = Field(description="Per node the gates that decide its shape or existence.")
    parameters: list[dict[str, Any]] = Field(description="How the bytes of each initializer follow from the counts.")


class Reference(_Part):
    """The subnet that every other one is compared with."""

    subnet: str
    latency_ms: float | None = Field(
        gt=0, description="Median over the session of the medians of the rounds; null on an emulated device."
    )
    latency_p10_ms: float | None = Field(gt=0)
    latency_p90_ms: float | None = Field(gt=0)
    latency_p99_ms: float | None = Field(None, gt=0, description="Older files lack it.")
    instructions: float | None = Field(None, gt=0, description="Median instructions of a run, where they are counted.")
    drift: float = Field(ge=1, description="Slowest round's median over the fastest one's.")
    n_rounds: int


class Noise(_Part):
    """How well the measurements repeat; fractions, not percent."""

    repeat_mape: float = Field(description="Mean relative difference between two rounds of a subnet.")
    interval_width: float = Field(description="Median relative width of the 90% intervals.")
    widest_interval: float
    cpu_share: float = Field(description="Share of the time that the measuring process got; others had the rest.")
    disturbed_rounds: int = Field(description="Rounds that are kept though they were disturbed in every attempt.")
    rejected_rounds: int = Field(description="Attempts that were disturbed and measured again.")


class Profile(_Part):
    """A device, its environment, and the raw measurements of subnets of one network taken there.

    Read with `read`, written with `write`; the fields are those of the file.
    """

    schema_name: Literal["fn3hw.profile/1"] = Field(SCHEMA, alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    command: str = Field(description="How the device was reached.")
    device: dict[str, Any] = Field(description="The device key: profiles are mixed only where it is the same.")
    state: dict[str, Any] = Field(description="What the device was like, for information.")
    settings: dict[str, Any] = Field(
        description="Effort, runtime options and what a sweep over them tried, seed, and per linear layer the 90% "
        "interval of its time on blocks."
    )
    network: Network
    reference: Reference
    measurements: tuple[Measurement, ...] = Field(min_length=1)
    noise: Noise
    sensitivity: Sensitivity | None = Field(
        None, description="How much slower subnets get where the reference gets slower. Older files lack it."
    )
    verdict: Literal["stable", "noisy"]
    reasons: tuple[str, ...] = Field(description="Why the verdict is noisy, or what was seen though it is stable.")
    advice: tuple[str, ...] = Field(description="What to do about it.")
    origin: Profile | None = Field(
        None, description="Another device's profile of the network, from which this one's cost model starts."
    )

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, title="fn3hw profile"
    )

    @property
    def device_id(self) -> str:
        """Short digest of the device key."""
        return device_id(self.device)

    @property
    def emulated(self) -> bool:
        """Whether the device is emulated: its time says nothing about that of a real one, so it has no latency."""
        return bool(self.device.get("emulated"))

    @property
    def quantity(self) -> Quantity:
        """What costs are; all but latency is relative to the full network's."""
        if not self.emulated:
            return "latency"
        return "instructions" if self.settings.get("clock") == "instructions" else "emulated time"

    @property
    def full_cost(self) -> float:
        """Cost of the full network: its latency in ms, or 1 where costs are relative."""
        return self.reference.latency_ms or 1.0

    @property
    def full(self) -> Measurement | None:
        """What was measured of the full network by itself; None where it was not."""
        return next((m for m in self.measurements if m.subnet == self.reference.subnet), None)

    @property
    def tail(self) -> float:
        """How much longer one of ten runs takes than the usual one: a factor, the median over the subnets."""
        factors = [m.latency_p90_ms / m.latency_ms for m in self.measurements if m.latency_p90_ms and m.latency_ms]
        return max(1.0, median(factors)) if factors else 1.0

    @property
    def space(self) -> SearchSpace:
        """The network's search space."""
        return SearchSpace.from_json(self.network.gates)

    @property
    def fitted(self) -> tuple[Measurement, ...]:
        """The measurements that a cost model may be fitted on."""
        return tuple(m for m in self.measurements if m.role == "fit")

    @property
    def held_out(self) -> tuple[Measurement, ...]:
        """The measurements kept to test a cost model on."""
        return tuple(m for m in self.measurements if m.role == "holdout")

    @property
    def blockwise(self) -> tuple[str, ...]:
        """Linear layers that the device computes faster on blocks of packed integers; they were measured so."""
        return tuple(layer for layer, (_, high) in self.settings.get("blockwise", {}).items() if high < 1)

    def check_network(self, digest: str) -> None:
        """Raise `ProfileError` unless the profile was measured with this network, whatever its weights' values."""
        if digest != self.network.digest:
            raise ProfileError(
                f"The profile was measured with another network ({self.network.name}, {self.network.digest[:12]}), "
                f"not with this one ({digest[:12]}).",
                hint="Measure this one: fn3hw profile RUN --output FILE",
            )

    def require_stable(self) -> None:
        """Raise `NoisyMeasurement` where the verdict is noisy."""
        if self.verdict == "noisy":
            raise NoisyMeasurement(" ".join(self.reasons), hint=" ".join(self.advice))

    def to_text(self) -> str:
        """The file's content: JSON, its own SHA-256 included. What a file lacked, it still lacks.

        Keys stay in their order: that of the network's nodes tells which of them may be fused into which.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        content["sha256"] = _checksum(content)
        return _json(content, sort_keys=False) + "\n"

    def write(self, path: Path | str) -> None:
        """Write the profile as a file.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.to_text())

    @classmethod
    def read(cls, path: Path | str) -> Profile:
        """Read a profile file.

        Raises:
            ProfileError: it is missing, truncated, edited, or of another schema.
        """
        try:
            text = Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ProfileError(f"Cannot read the profile {path}: {reason}.", hint=_AGAIN) from error
        return cls.from_text(text, source=str(path))

    @classmethod
    def from_text(cls, text: str, *, source: str = "the profile") -> Profile:
        """Read what `to_text` made.

        Raises:
            ProfileError: it is truncated, edited, or of another schema.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"{source} is not JSON, or is truncated: {error}.", hint=_AGAIN) from error
        if not isinstance(content, dict) or not str(content.get("schema", "")).startswith("fn3hw.profile/"):
            raise ProfileError(f"{source} is no profile of fn3hw.", hint=_AGAIN)
        if content["schema"] != SCHEMA:
            raise ProfileError(
                f"{source} has schema {content['schema']}; this fn3hw reads {SCHEMA}.", hint="Upgrade fn3hw."
            )
        if content.pop("sha256", None) != _checksum(content):
            raise ProfileError(f"{source} was edited or damaged: its checksum does not match.", hint=_AGAIN)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"])
            raise ProfileError(f"{source} does not follow {SCHEMA}: {place}: {first['msg']}.", hint=_AGAIN) from error


def _json(content: Any, *, sort_keys: bool) -> str:
    return json.dumps(content, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _checksum(content: dict[str, Any]) -> str:
    """Of the content with sorted keys: another program may have written it in another order."""
    return hashlib.sha256(_json(content, sort_keys=True).encode()).hexdigest()


_AGAIN = "Measure it again: fn3hw profile RUN --output FILE"
