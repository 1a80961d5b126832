from __future__ import annotations

import pytest

from fn3hw.service import catalog
from fn3hw.service.api.shared import Parts
from fn3hw.service.errors import Conflict, NotFound
from fn3hw.service.jobs.desk import OPEN, STATES
from fn3hw.service.jobs.kinds import Check, Measure
from fn3hw.service.models import Device, Job, now
from tests.service.conftest import Hands
from tests.service.rows import fill


def state(parts: Parts, job_id: str) -> str:
    with parts.database.session() as session:
        return catalog.job(session, job_id).state


def test_a_job_goes_from_queued_to_running_and_reports(parts: Parts, hands: Hands) -> None:
    job, new = parts.desk.submit(Check(device="local"), token_id=None)
    assert new and job.state == "queued" and hands.put_jobs == [(job.id, 1, "devices", "local")]
    begun, before = parts.desk.begin(job.id, 1, "here") or (None, None)
    assert begun is not None and (begun.state, begun.worker, before) == ("running", "here", None)
    again, before = parts.desk.begin(job.id, 1, "there") or (None, None)
    assert again is not None and before == "here", "a step that was killed begins once more"
    assert parts.desk.begin(job.id, 2, "here") is None and parts.desk.begin("nothing", 1, "here") is None
    parts.desk.report(job.id, progress={"progress": "a", "done": 1, "total": 2}, log="x" * 10**6)
    assert not parts.desk.is_cancelled(job.id)
    parts.desk.cancel(job.id)
    parts.desk.report(job.id, progress=None, log="y")
    assert parts.desk.is_cancelled(job.id)
    with parts.database.session() as session:
        found = catalog.job(session, job.id)
        assert found.log == "y" and found.progress is not None and found.progress["done"] == 1


def test_a_queued_job_is_cancelled_at_once_and_tried_again(parts: Parts, hands: Hands) -> None:
    job, _ = parts.desk.submit(Check(device="local"), token_id=None)
    assert parts.desk.cancel(job.id).state == "cancelled" and hands.taken_back == [(job.id, 1)]
    assert parts.desk.begin(job.id, 1, "here") is None
    again = parts.desk.retry(job.id)
    assert (again.state, again.attempt) == ("queued", 2) and hands.put_jobs[-1] == (job.id, 2, "devices", "local")
    assert parts.desk.begin(job.id, 1, "here") is None, "of an attempt that is over, nothing happens any more"
    assert parts.desk.begin(job.id, 2, "here") is not None


@pytest.mark.parametrize("of", STATES)
def test_what_can_be_done_in_each_state(of: str, parts: Parts) -> None:
    job_id = fill(parts).jobs[of]
    if of in ("failed", "cancelled"):
        assert parts.desk.retry(job_id).state == "queued"
    else:
        with pytest.raises(Conflict, match=of):
            parts.desk.retry(job_id)
        parts.desk.cancel(job_id)
        assert state(parts, job_id) == {"queued": "cancelled"}.get(of, of)


def test_what_waits_for_a_device_goes_with_it_to_its_worker(parts: Parts, hands: Hands) -> None:
    job, _ = parts.desk.submit(Check(device="local"), token_id=None)
    parts.desk.put_open_jobs()
    assert hands.put_jobs[-1] == (job.id, 1, "devices", "local") and not hands.taken_back
    with parts.database.session() as session:
        catalog.device(session, "local").worker = "bench"
    for _ in range(2):
        parts.desk.put_open_jobs()
        assert hands.put_jobs[-1] == (job.id, 2, "worker:bench", "local")
    assert hands.taken_back == [(job.id, 1)]
    assert parts.desk.begin(job.id, 1, "other") is None, "a worker that was about to begin it does not"
    assert parts.desk.begin(job.id, 2, "bench") is not None
    with parts.database.session() as session:
        catalog.device(session, "local").worker = None
    parts.desk.put_open_jobs()
    assert hands.taken_back == [(job.id, 1)], "what runs goes on where it runs"


def test_what_is_queued_is_handed_out_again(parts: Parts, hands: Hands) -> None:
    ids = fill(parts)
    parts.desk.put_open_jobs()
    assert hands.put_jobs == [(ids.jobs["queued"], 1, "devices", "local")]
    assert "queued" in OPEN


def test_a_device_of_a_worker_has_its_queue(parts: Parts, hands: Hands) -> None:
    with parts.database.session() as session:
        session.add(Device(name="pi5", command="ssh pi5 python3 -", worker="beside", created_at=now()))
    parts.desk.submit(Check(device="pi5"), token_id=None)
    assert hands.put_jobs[-1][2:] == ("worker:beside", "pi5")


def test_nothing_is_kept_of_a_job_that_cannot_be(parts: Parts, hands: Hands) -> None:
    for wrong in (Check(device="mars"), Measure(run="nothing")):
        with pytest.raises(NotFound):
            parts.desk.submit(wrong, token_id=None, key="once")
    with parts.database.session() as session:
        assert session.query(Job).count() == 0 and hands.put_jobs == []
