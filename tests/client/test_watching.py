"""Following a job over streams that break."""

from __future__ import annotations

import httpx
import pytest

from fn3hw.client import Client, Job, JobCancelled, Unreachable
from fn3hw.errors import InfeasibleBudget, ServerError
from tests.client.conftest import Script, events, job

LOST = httpx.ReadError("Connection reset")
NO_EVENTS = httpx.Response(200, json={})


def seen(client: Client) -> tuple[list[int], Job]:
    found: list[int] = []
    ended = client.watch("profile-1", lambda now: found.append(now.progress.done) if now.progress else None)
    return found, ended


def test_events_tell_how_far_a_job_is(client: Client, script: Script) -> None:
    script.answers = [job("queued"), events(job(done=1), job(done=2), job("succeeded", result={"a": 1}))]
    found, ended = seen(client)
    assert found == [1, 2] and ended.result == {"a": 1}


def test_a_stream_that_breaks_is_opened_again(client: Client, script: Script) -> None:
    broken = [events(job(done=1)), LOST, httpx.Response(503), events(job(done=1), job(done=3), job("succeeded"))]
    script.answers = [job("queued"), *broken]
    found, ended = seen(client)
    assert found == [1, 3] and ended.state == "succeeded"
    assert all(request.url.path.endswith("/events") for request in script.asked[1:])


@pytest.mark.parametrize("answer", [LOST, NO_EVENTS], ids=["silent", "no events"])
def test_where_events_do_not_get_through_it_asks(client: Client, script: Script, answer: object) -> None:
    script.answers = [job("queued"), *[answer] * 3, job(done=1), job(done=2), job("succeeded")]
    found, _ = seen(client)
    assert found == [1, 2]
    assert [request.url.path.rpartition("/")[2] for request in script.asked[4:]] == ["profile-1"] * 3


def test_a_server_may_be_away_for_minutes_but_not_for_ever(client: Client, script: Script) -> None:
    script.answers = [job("queued"), *[LOST] * 40, job("succeeded")]
    assert client.watch("profile-1").state == "succeeded"
    script.answers = [job("queued"), *[LOST] * 4000]
    with pytest.raises(Unreachable, match="profile-1 may go on") as raised:
        client.watch("profile-1")
    assert "fn3hw job watch profile-1" in raised.value.hint


def test_a_token_that_ends_meanwhile_ends_it(client: Client, script: Script) -> None:
    refused = {"code": "unauthorized", "message": "No.", "hint": "", "exit_status": 2}
    script.answers = [job("queued"), httpx.Response(401, json={"error": refused})]
    with pytest.raises(ServerError, match="No"):
        client.watch("profile-1")


def test_a_job_that_failed_raises_its_error(client: Client, script: Script) -> None:
    body = {"code": "infeasible-budget", "message": "Too small.", "hint": "", "exit_status": 3, "limit": "x", "best": 2}
    script.answers = [job("failed", error=body)]
    with pytest.raises(InfeasibleBudget, match="Too small") as raised:
        client.wait("profile-1")
    assert raised.value.best == 2
    script.answers = [job("cancelled")]
    with pytest.raises(JobCancelled, match="was cancelled") as cancelled:
        client.wait("profile-1")
    assert cancelled.value.exit_status == 130 and "fn3hw job retry profile-1" in cancelled.value.hint


def test_a_verb_asked_for_again_goes_on_where_it_failed(client: Client, script: Script) -> None:
    script.answers = [job("failed"), job("queued", attempt=2)]
    assert client.profile("run-1", wait=False).attempt == 2
    assert script.asked[-1].url.path.endswith("/profile-1/retry")
