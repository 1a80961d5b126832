"""A job that meets what nobody foresaw is over all the same, and one that can go on later is not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from fn3hw.service import catalog
from fn3hw.service.api.shared import Parts
from fn3hw.service.errors import Unavailable
from fn3hw.service.jobs import workshop as module
from fn3hw.service.jobs.child import Ended
from fn3hw.service.jobs.kinds import Check, Train
from fn3hw.service.jobs.work import Parameters
from fn3hw.service.jobs.workshop import Parked, Workshop
from fn3hw.service.models import Job
from tests.service.rows import fill

HEALTH = {"name": "local", "command": "ssh secret@pi5 python3 -", "findings": []}


@pytest.fixture
def workshop(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    return Workshop(parts.settings, parts.database, parts.storage, parts.desk, threading.Event())


def ends(monkeypatch: pytest.MonkeyPatch, ended: Ended | Exception) -> None:
    """Verbs end like that."""

    def run(*_: Any, **__: Any) -> Ended:
        if isinstance(ended, Exception):
            raise ended
        return ended

    monkeypatch.setattr(module, "run_verb", run)


def done(workshop: Workshop, parts: Parts, parameters: Parameters) -> Job:
    """The job of a request when a worker has done it."""
    job, _ = parts.desk.submit(parameters, token_id=None)
    brought = workshop.perform(job.id, job.attempt)
    assert brought is not None
    workshop.finish(job.id, job.attempt, brought)
    with parts.database.reading() as session:
        return catalog.job(session, job.id)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (ZeroDivisionError("x"), "internal", "ZeroDivisionError"),
        (OSError(28, "No space left on device"), "unavailable", "No space left"),
    ],
)
def test_what_nobody_foresaw_ends_the_job(
    raised: Exception, code: str, said: str, workshop: Workshop, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, raised)
    job = done(workshop, parts, Check(device="local"))
    assert job.state == "failed" and job.error is not None and job.error["code"] == code
    assert said in job.error["message"]
    assert parts.desk.retry(job.id).state == "queued"


def test_a_verb_that_says_done_but_left_nothing_has_failed(
    workshop: Workshop, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, Ended(0, {"run": "run"}))
    job = done(workshop, parts, Train(recipe="digits"))
    assert job.state == "failed" and job.error is not None and "lacks" in job.error["message"]


def test_a_storage_that_stays_away_fails_the_job(
    workshop: Workshop, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    ends(monkeypatch, Ended(0, HEALTH))

    def away(*_: Any) -> None:
        raise Unavailable("The storage is away.")

    monkeypatch.setattr(Check, "finish", away)
    job = done(workshop, parts, Check(device="local"))
    assert job.state == "failed" and job.error is not None and job.error["message"] == "The storage is away."


def test_a_database_that_is_away_for_a_while_is_waited_for(
    workshop: Workshop, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, Ended(0, HEALTH))
    tries = iter(range(3))
    begin = parts.desk.begin

    def shaky(*given: Any) -> Any:
        if next(tries, None) is not None:
            raise Unavailable("The database is away.")
        return begin(*given)

    monkeypatch.setattr(parts.desk, "begin", shaky)
    assert done(workshop, parts, Check(device="local")).state == "succeeded"


def test_a_worker_that_is_to_end_leaves_the_job_as_it_is(
    workshop: Workshop, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, Ended(130, None))
    workshop.closing.set()
    job, _ = parts.desk.submit(Check(device="local"), token_id=None)
    with pytest.raises(Parked):
        workshop.perform(job.id, job.attempt)
    with parts.database.reading() as session:
        assert catalog.job(session, job.id).state == "running"


def test_a_device_that_does_not_answer_keeps_what_is_known_of_it(
    workshop: Workshop, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, Ended(0, HEALTH))
    first = done(workshop, parts, Check(device="local"))
    with parts.database.reading() as session:
        before = catalog.device(session, "local")
    assert before.health == first.result == {"name": "local", "findings": []}, "the command is for administrators"
    ends(monkeypatch, Ended(4, {"error": {"code": "device", "message": "It is off.", "hint": "Turn it on."}}))
    second = done(workshop, parts, Check(device="local", repeat=1))
    assert second.state == "failed" and second.error is not None and second.error["exit_status"] == 4
    with parts.database.reading() as session:
        after = catalog.device(session, "local")
    assert (after.health, after.checked_at) == (before.health, before.checked_at)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_measures_here_says_so_while_it_does(
    kind: str, workshop: Workshop, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fn3hw.service.jobs.child import is_locked
    from fn3hw.service.jobs.kinds import FindFront, Measure

    ids, seen = fill(parts), list[bool]()

    def run(*_: Any, **__: Any) -> Ended:
        seen.append(is_locked(parts.settings.measured))
        return Ended(2, None)

    monkeypatch.setattr(module, "run_verb", run)
    done(workshop, parts, Measure(run=ids.run))
    done(workshop, parts, FindFront(run=ids.run, profile=ids.profile))
    assert seen == [True, False] and not is_locked(parts.settings.measured)
    assert Path(parts.settings.measured).exists()
