"""What every kind of job has: parameters that say what is asked for, the work that this is, and what it ends in."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from fn3hw.profiler.devices import LOCAL
from fn3hw.service.models import Job
from fn3hw.service.storage import Storage, Stored

REPEATS = 10**6
Repeat = Annotated[int, Field(ge=0, lt=REPEATS, description="Another number does the same work once more.")]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a worker is to do.

    Args:
        arguments: of ``fn3hw``.
        files: stored files by their path in the job's folder.
        texts: small files by their path.
        device: what is measured on.
        command: that reaches it.
        run_id: the run that it is about.
        archive_of: the run whose evaluations are in ``run/archive.jsonl``.
        keep: files that the job ends in, as patterns in its folder.
        carry: files that the verb goes on from, as such patterns.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    command: str | None = None
    run_id: str | None = None
    archive_of: str | None = None
    keep: tuple[str, ...] = ()
    carry: tuple[str, ...] = ()

    @property
    def needs_quiet(self) -> bool:
        """Whether it computes or measures on the worker's own machine, where nothing else may at the same time."""
        return self.command in (None, LOCAL)

    @property
    def measures_here(self) -> bool:
        """Whether it measures the worker's own machine."""
        return self.command == LOCAL


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a worker brings back.

    Args:
        document: of the verb; empty where it gave none.
        files: what is kept of its folder, stored, by path.
    """

    document: Mapping[str, Any]
    files: Mapping[str, Stored]


Rows = Callable[[Session, Job], None]
"""Makes rows in a transaction. Called again after a kill, it finds them there."""


class Parameters(BaseModel, ABC):
    """What a request for a job holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str]
    hidden: ClassVar[tuple[str, ...]] = ()
    """Entries of the verb's document that are not for all who may read."""
    repeat: Repeat = 0

    @abstractmethod
    def work(self, session: Session) -> Work:
        """The verb and its files.

        Raises:
            NotFound: something that it names is not there.
            Conflict: what it names does not belong together.
        """

    def finish(self, storage: Storage, outcome: Outcome) -> Rows:
        """What the job ended in, as rows to be made; the slow part of it is done here, outside a transaction."""
        return lambda session, job: None

    @property
    def job_id(self) -> str:
        """The same for the same work."""
        text = json.dumps([self.kind, self.model_dump(mode="json")], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
