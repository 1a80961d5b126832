"""What a server tells: frozen values. Fields that a newer server adds are passed over."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

OPEN: Final = ("queued", "running")
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Told(BaseModel):
    """A value that a server tells."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Progress(Told):
    """How far a job is."""

    what: str
    done: int
    total: int
    seconds_left: float | None = None
    note: str = ""
    at: datetime


class Job(Told):
    """A verb that a server was asked for.

    ``result`` is the document of the verb, as in the shell; ``error`` the body of what it ended in; ``made`` the id of
    the run, profile or search that it ended in.
    """

    id: str
    kind: str
    parameters: dict[str, Any] = Field(repr=False)
    state: State
    device: str | None = None
    run_id: str | None = None
    attempt: int = 1
    worker: str | None = None
    progress: Progress | None = None
    result: dict[str, Any] | None = Field(None, repr=False)
    error: dict[str, Any] | None = None
    made: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state not in OPEN


class JobFile(Told):
    """A file that a job ended in."""

    name: str
    sha256: str
    size: int
    media_type: str = ""


class NetworkInfo(Told):
    """A supernet."""

    id: str
    name: str
    digest: str
    architecture: str
    n_blocks: int
    input_shape: tuple[int, ...]
    n_classes: int
    onnx_sha256: str
    space_sha256: str
    created_at: datetime


class RunInfo(Told):
    """A trained network with its settings."""

    id: str
    name: str
    network_id: str
    recipe: dict[str, Any] = Field(repr=False)
    job_id: str | None = None
    created_at: datetime


class RunDetails(RunInfo):
    """A run with the SHA-256 of its files by name, and how much was evaluated."""

    files: dict[str, str] = Field(repr=False)
    evaluations: int


class ProfileInfo(Told):
    """Measurements of a network on a device; ``summary`` is the document of its verb."""

    id: str
    device: str
    architecture: str
    sha256: str
    verdict: str
    quantity: str
    summary: dict[str, Any] = Field(repr=False)
    job_id: str | None = None
    created_at: datetime


class SearchInfo(Told):
    """A finished search; its atlas has the same id."""

    id: str
    run_id: str
    profile_id: str
    device: str
    atlas_sha256: str
    summary: dict[str, Any]
    job_id: str | None = None
    created_at: datetime


class PointInfo(Told):
    """An evaluated subnet with its predicted cost; see `fn3hw.Point`."""

    subnet: str
    emulated: bool
    latency_ms: float | None
    latency_ms_low: float | None
    latency_ms_high: float | None
    peak_mib: float | None
    size_mib: float | None
    accuracy: float | None
    evaluated_accuracy: float | None
    relative_cost: float | None = None
    relative_cost_low: float | None = None
    relative_cost_high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The document of the verb: relative costs are there on emulated devices alone."""
        relative = {name for name in type(self).model_fields if name.startswith("relative_cost")}
        return self.model_dump(mode="json", exclude=set() if self.emulated else relative)


class FoundPoint(PointInfo):
    """The answer to a budget."""

    counts: dict[str, int] = Field(repr=False)
    binding: str | None


class ExportedFile(FoundPoint):
    """An ONNX file for a budget, here, and what was measured of it on the device."""

    path: Path
    sha256: str
    measured_latency_ms: float | None
    measured_relative_cost: float | None = None
    measured_peak_mib: float | None = None
    percentile: int = 50
    budget_met: bool | None
    max_abs_diff: float
    test_accuracy: float


class AtlasInfo(Told):
    """The front of a search, by ascending cost, and how many evaluated subnets lie behind it."""

    id: str
    run_id: str
    device: str
    points: tuple[PointInfo, ...] = Field(repr=False)
    n_points: int
    n_dominated: int


class DeviceInfo(Told):
    """A device that a server knows."""

    name: str
    worker: str | None = None
    created_at: datetime
    checked_at: datetime | None = None
    verdict: str | None = None
    health: dict[str, Any] | None = Field(None, repr=False)


class WorkerInfo(Told):
    """A process that takes jobs."""

    name: str
    devices: tuple[str, ...]
    seen_at: datetime


class TokenInfo(Told):
    """A token without its secret."""

    id: str
    name: str
    scope: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    used_at: datetime | None = None


class Me(Told):
    """Whom the token of this client belongs to."""

    token_id: str
    scope: str
    expires_at: datetime | None = None
