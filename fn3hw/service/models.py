"""The rows: what the server knows. Files are not here but in `fn3hw.service.storage`, under their SHA-256."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Index, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SHA256 = String(64)
ID = String(80)


class Moment(TypeDecorator[datetime]):
    """A time with its zone, also where the database knows none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From UTC."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    """All tables begin with ``fn3hw_``: the queues of DBOS are in the same database."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: Moment, dict[str, Any]: JSON, list[Any]: JSON}


class Token(Base):
    """Who may do what: a secret is kept as its SHA-256 alone."""

    __tablename__ = "fn3hw_tokens"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    secret_sha256: Mapped[str] = mapped_column(SHA256)
    scope: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class Login(Base):
    """A browser that a token was given in; its cookie is kept as its SHA-256 alone."""

    __tablename__ = "fn3hw_logins"

    cookie_sha256: Mapped[str] = mapped_column(SHA256, primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("fn3hw_tokens.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime]


class Device(Base):
    """What is measured on, and what its last check or measurement said of it."""

    __tablename__ = "fn3hw_devices"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    command: Mapped[str] = mapped_column(Text)
    worker: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    health: Mapped[dict[str, Any] | None]
    checked_at: Mapped[datetime | None]
    verdict: Mapped[str | None] = mapped_column(String(16))


class File(Base):
    """A stored file, known by its content."""

    __tablename__ = "fn3hw_files"

    sha256: Mapped[str] = mapped_column(SHA256, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime]


class Network(Base):
    """A supernet: graph, weights and gates."""

    __tablename__ = "fn3hw_networks"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(SHA256, unique=True)
    architecture: Mapped[str] = mapped_column(SHA256, index=True)
    gates: Mapped[list[Any]]
    n_blocks: Mapped[int]
    input_shape: Mapped[list[Any]]
    n_classes: Mapped[int]
    onnx_sha256: Mapped[str] = mapped_column(ForeignKey("fn3hw_files.sha256"))
    space_sha256: Mapped[str] = mapped_column(ForeignKey("fn3hw_files.sha256"))
    created_at: Mapped[datetime]


class Run(Base):
    """A trained network with its settings: the files of a run folder."""

    __tablename__ = "fn3hw_runs"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    network_id: Mapped[str] = mapped_column(ForeignKey("fn3hw_networks.id"), index=True)
    recipe: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[datetime]


class RunFile(Base):
    """A file of a run folder."""

    __tablename__ = "fn3hw_run_files"

    run_id: Mapped[str] = mapped_column(ForeignKey("fn3hw_runs.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(200), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("fn3hw_files.sha256"))


class Evaluation(Base):
    """One line of a run's archive: a subnet whose accuracy was evaluated, once for each evaluator.

    ``search`` is empty where all images were looked at: such a line serves every search, and is there once.
    """

    __tablename__ = "fn3hw_evaluations"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("fn3hw_runs.id", ondelete="CASCADE"))
    evaluator: Mapped[str] = mapped_column(String(80))
    subnet_sha256: Mapped[str] = mapped_column(SHA256)
    search: Mapped[str] = mapped_column(String(80))
    line: Mapped[str] = mapped_column(Text)

    __table_args__ = (UniqueConstraint("run_id", "evaluator", "subnet_sha256", "search"),)


class Profile(Base):
    """Measurements of a network on a device."""

    __tablename__ = "fn3hw_profiles"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    device: Mapped[str] = mapped_column(String(64), index=True)
    architecture: Mapped[str] = mapped_column(SHA256, index=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("fn3hw_files.sha256"))
    verdict: Mapped[str] = mapped_column(String(16))
    quantity: Mapped[str] = mapped_column(String(16))
    summary: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[datetime]


class Search(Base):
    """A finished search: what its job evaluated, and the atlas that it ended in."""

    __tablename__ = "fn3hw_searches"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("fn3hw_runs.id"), index=True)
    profile_id: Mapped[str] = mapped_column(ForeignKey("fn3hw_profiles.id"), index=True)
    device: Mapped[str] = mapped_column(String(64), index=True)
    atlas_name: Mapped[str] = mapped_column(String(200))
    atlas_sha256: Mapped[str] = mapped_column(ForeignKey("fn3hw_files.sha256"))
    evaluators_sha256: Mapped[str] = mapped_column(ForeignKey("fn3hw_files.sha256"))
    summary: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[datetime]


class Job(Base):
    """A verb that was asked for, and how far it is."""

    __tablename__ = "fn3hw_jobs"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    parameters: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(140))
    device: Mapped[str | None] = mapped_column(String(64))
    run_id: Mapped[str | None] = mapped_column(ID)
    token_id: Mapped[str | None] = mapped_column(ID)
    attempt: Mapped[int]
    worker: Mapped[str | None] = mapped_column(String(64))
    cancel: Mapped[bool]
    progress: Mapped[dict[str, Any] | None]
    log: Mapped[str] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None]
    made: Mapped[str | None] = mapped_column(ID)
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_fn3hw_jobs_state", "state"),
        Index("ix_fn3hw_jobs_created", "created_at", "id"),
    )


class JobFile(Base):
    """A file that a job ended in."""

    __tablename__ = "fn3hw_job_files"

    job_id: Mapped[str] = mapped_column(ForeignKey("fn3hw_jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("fn3hw_files.sha256"))


class Submission(Base):
    """An idempotency key and the job that it was first given for."""

    __tablename__ = "fn3hw_submissions"

    token_id: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(SHA256)
    job_id: Mapped[str] = mapped_column(ID)
    created_at: Mapped[datetime]


class Worker(Base):
    """A process that takes jobs, and when it was last seen."""

    __tablename__ = "fn3hw_workers"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    process: Mapped[str] = mapped_column(String(64))
    devices: Mapped[list[Any]]
    seen_at: Mapped[datetime]


class Entry(Base):
    """A line of the audit log: who changed what."""

    __tablename__ = "fn3hw_audit"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    token_id: Mapped[str | None] = mapped_column(ID)
    action: Mapped[str] = mapped_column(String(80))
    target: Mapped[str] = mapped_column(String(200))
    status: Mapped[int]


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)
