"""What changed between two profiles of one network: device, settings, noise, and what each gate's blocks cost.

What a gate saves is compared relative to each one's own full network, so that a device that is twice as fast all over
differs in no gate. The intervals are those of the two cost models' ratios; their errors are independent of each other,
so the interval of a difference adds them in squares (Zou and Donner, 2008). With many gates some difference would seem
real by chance: the intervals are so wide that all of them together hold with 90%.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.fitting import fit_cost
from fn3hw.cost.metrics import Metrics
from fn3hw.cost.model import CostModel, Rules
from fn3hw.errors import ProfileError
from fn3hw.profiler import Profile
from fn3hw.profiler.device import differing
from fn3hw.space.gate import Gate

Pair = tuple[Any, Any]
"""A value in the first profile and in the second; None where there is none."""

LEVEL = 0.9
"""Coverage of the intervals of all gates together."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What fewer blocks of one gate save in two profiles, all other gates whole.

    Args:
        kept: blocks that are left of the gate.
        share: saved share of each one's own full latency; negative where fewer blocks are slower.
        low: lower ends of the intervals of those shares.
        high: upper ends.
        ms: saved milliseconds; None where the device is emulated.
    """

    kept: int
    share: tuple[float, float]
    low: tuple[float, float]
    high: tuple[float, float]
    ms: tuple[float | None, float | None]

    @property
    def difference(self) -> float:
        """By how much the second share is larger."""
        return self.share[1] - self.share[0]

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true `difference` lies."""
        (a, b), low, high = self.share, self.low, self.high
        below, above = math.hypot(b - low[1], high[0] - a), math.hypot(high[1] - b, a - low[0])
        return self.difference - below, self.difference + above

    @property
    def excess(self) -> float:
        """How far the interval of the difference stays away from 0; negative where it holds 0."""
        low, high = self.interval
        return max(low, -high)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kept": self.kept,
            "saved": list(self.share),
            "saved_low": list(self.low),
            "saved_high": list(self.high),
            "saved_ms": list(self.ms),
            "difference": self.difference,
            "difference_interval": list(self.interval),
        }


@dataclass(frozen=True, slots=True)
class GateDifference:
    """What one gate's blocks cost in two profiles.

    Args:
        gate: the gate.
        half: what removing half of it saves.
        whole: what removing all that can be removed saves.
        ladder: the same at every count that is worth keeping on either device, descending.
    """

    gate: Gate
    half: Saving
    whole: Saving
    ladder: tuple[Saving, ...]

    @property
    def excess(self) -> float:
        """By how much `half` or `whole` differs beyond the interval, whichever does more."""
        return max(self.half.excess, self.whole.excess)

    @property
    def largest(self) -> float:
        """The larger of the two differences, whatever its sign."""
        return max(abs(self.half.difference), abs(self.whole.difference))

    @property
    def is_certain(self) -> bool:
        """Whether the gate differs by more than the uncertainty of the two models explains."""
        return self.excess > 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "gate": self.gate.name,
            "level": self.gate.level,
            "size": self.gate.size,
            "within_uncertainty": not self.is_certain,
            "excess": self.excess,
            "half": self.half.to_json(),
            "all": self.whole.to_json(),
            "ladder": [{"kept": rung.kept, "saved": list(rung.share)} for rung in self.ladder],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two profiles of one network. Made by `difference`.

    Args:
        device: entries of the device key that differ.
        settings: settings that differ, those within others by dotted names, and ``blockwise``, the layers on blocks.
        noise: verdict, and how well each repeats.
        reference_latency_ms: of the full network; None where the device is emulated.
        holdout: accuracy of the two cost models.
        rules: what each of them found about its device.
        gates: the gates, those that differ most beyond the models' intervals first, then those that differ most.
    """

    device: Mapping[str, Pair]
    settings: Mapping[str, Pair]
    noise: Mapping[str, Pair]
    reference_latency_ms: Pair
    holdout: tuple[Metrics, Metrics]
    rules: tuple[Rules, Rules]
    gates: tuple[GateDifference, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, pairs as lists."""
        return {
            **{name: {k: list(pair) for k, pair in getattr(self, name).items()}
               for name in ("device", "settings", "noise")},
            "reference_latency_ms": list(self.reference_latency_ms),
            "holdout": [metrics.to_json() for metrics in self.holdout],
            "rules": [str(rules) for rules in self.rules],
            "gates": [gate.to_json() for gate in self.gates],
        }  # fmt: skip


def difference(a: Profile, b: Profile) -> Difference:
    """What changed from one profile to another of the same network.

    Raises:
        ProfileError: they are of different networks, or one of them cannot be fitted on.
    """
    if a.network.digest != b.network.digest:
        first, second = (f"{p.network.name} ({p.network.digest[:12]})" for p in (a, b))
        raise ProfileError(
            f"The profiles are of different networks, {first} and {second}: their gates cannot be compared.",
            hint="Measure one network on both devices: fn3hw profile RUN --device D --output FILE",
        )
    sides = _Side(a), _Side(b)
    return Difference(
        device=_changed(a.device, b.device),
        settings=_changed(_settings(a), _settings(b)),
        noise={name: (_noise(a)[name], _noise(b)[name]) for name in _noise(a)},
        reference_latency_ms=(a.reference.latency_ms, b.reference.latency_ms),
        holdout=(sides[0].cost.holdout, sides[1].cost.holdout),
        rules=(sides[0].cost.rules, sides[1].cost.rules),
        gates=tuple(sorted(_gate_differences(sides), key=lambda one: (-max(one.excess, 0.0), -one.largest))),
    )


class _Side:
    """One of two profiles, with its cost model."""

    def __init__(self, profile: Profile) -> None:
        self.cost: CostModel = fit_cost(profile)
        self._emulated = profile.emulated
        self._full_ms = float(self.cost.predict([self.cost.space.full()]).latency_ms.iloc[0])

    def saved(self, places: Sequence[tuple[Gate, int]], level: float) -> FloatArray:
        """Saved share of the full latency at n counts of gates, all others whole: itself, low and high, (3, n)."""
        kept = self.cost.relative((self.cost.space.from_counts({gate.name: c}) for gate, c in places), level=level)
        saved: FloatArray = 1.0 - kept[["relative", "relative_high", "relative_low"]].to_numpy().T
        return saved

    def saved_ms(self, share: float) -> float | None:
        """A share of the full latency, where it is one: an emulator's time is not."""
        return None if self._emulated else share * self._full_ms


def _gate_differences(sides: tuple[_Side, _Side]) -> Iterator[GateDifference]:
    space = sides[0].cost.space
    ladders = {gate: set(chain.from_iterable(side.cost.steps(gate.name) for side in sides)) for gate in space}
    halves = {gate: max(gate.min_kept, gate.size // 2) for gate in space}
    places = [(gate, count) for gate in space for count in sorted(ladders[gate] | {halves[gate]}, reverse=True)]
    level = 1.0 - (1.0 - LEVEL) / (2 * len(space))
    savings = {
        place: _saving(place[1], sides, ends)
        for place, ends in zip(places, np.stack([side.saved(places, level) for side in sides]).T, strict=True)
    }
    for gate in space:
        rungs = tuple(savings[place] for place in places if place[0] == gate and place[1] in ladders[gate])
        yield GateDifference(gate, savings[gate, halves[gate]], savings[gate, gate.min_kept], rungs)


def _saving(kept: int, sides: tuple[_Side, _Side], ends: FloatArray) -> Saving:
    """From the saved share, its low and its high end in both profiles, shape (3, 2)."""
    share, low, high = ((float(a), float(b)) for a, b in ends)
    return Saving(kept, share, low, high, (sides[0].saved_ms(share[0]), sides[1].saved_ms(share[1])))


def _settings(profile: Profile) -> dict[str, Any]:
    """Settings by dotted names. How long layers take on blocks was measured; which of them are on blocks is set."""
    chosen = {name: value for name, value in profile.settings.items() if name != "blockwise"}
    return {**_flat(chosen), "blockwise": list(profile.blockwise)}


def _noise(profile: Profile) -> dict[str, Any]:
    return {"verdict": profile.verdict, **profile.noise.model_dump()}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Pair]:
    """Entries that differ, or that only one side has."""
    return {name: (a.get(name), b.get(name)) for name in differing(a, b)}
