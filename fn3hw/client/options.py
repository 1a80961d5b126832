"""What the verbs of a client take by name, as in the shell; what is left out is as usual."""

from __future__ import annotations

from typing import Literal, TypedDict


class Budgets(TypedDict, total=False):
    """Budgets, of which a lookup and an export need one at least."""

    latency_ms: float | None
    relative_cost: float | None
    peak_mib: float | None
    size_mib: float | None


class Repeated(TypedDict, total=False):
    """Of all jobs: the same work with another number is done once more."""

    repeat: int


class ProfileOptions(Repeated, total=False):
    """Of `Client.profile`; ``origin`` is the id of another device's profile to start from."""

    subnets: int | None
    target_mape: float | None
    minutes: float | None
    holdout: int
    origin: str | None
    threads: int
    sweep: bool
    seed: int
    allow_noisy: bool


class SearchOptions(Repeated, total=False):
    """Of `Client.search`."""

    evaluations: int
    images: int
    cost: Literal["latency", "peak", "size", "blocks"]
    level: tuple[str, ...]
    race: bool
    seed: int


class ExportOptions(Budgets, Repeated, total=False):
    """Of `Client.export`; ``verify_on`` is a device of the server, or None to measure nothing."""

    verify_on: str | None
    percentile: Literal[50, 90]


class CompareOptions(Repeated, total=False):
    """Of `Client.compare`."""

    methods: tuple[str, ...]
    seeds: int
    evaluations: int
    latency_ms: tuple[float, ...]
    images: int
    final_images: int | None
