"""Requests: tries again, pages, errors, and where the token goes."""

from __future__ import annotations

import logging
import traceback

import httpx
import pytest

from fn3hw.client import Client, Unreachable
from fn3hw.errors import (
    DeviceError,
    Fn3hwError,
    InfeasibleBudget,
    InputError,
    NoisyMeasurement,
    ProfileError,
    RunError,
    ServerError,
    UnknownName,
)
from tests.client.conftest import MOMENT, TOKEN, URL, Script, job

GONE = httpx.ConnectError("Connection refused")
LOST = httpx.ReadError("Connection reset")


def error(status: int, code: str, **more: object) -> httpx.Response:
    body = {"code": code, "message": "It is so.", "hint": "Do this.", "exit_status": 2, "job_id": None, **more}
    return httpx.Response(status, json={"error": body})


def test_a_request_is_sent_again_until_it_is_answered(client: Client, script: Script, pauses: list[float]) -> None:
    script.answers = [GONE, LOST, httpx.Response(503), {"token_id": "t", "scope": "read"}]
    assert client.me().scope == "read"
    assert len(pauses) == 3 and pauses == sorted(pauses)
    assert {request.headers["authorization"] for request in script.asked} == {f"Bearer {TOKEN}"}


def test_it_waits_as_long_as_the_server_says(client: Client, script: Script, pauses: list[float]) -> None:
    busy = httpx.Response(429, headers={"Retry-After": "7"})
    script.answers = [busy, {"token_id": "t", "scope": "read"}]
    client.me()
    assert 7 <= pauses[0] <= 9
    script.answers = [error(429, "too-many"), *[httpx.Response(429, headers={"Retry-After": "600"})] * 2]
    with pytest.raises(Unreachable):
        client.me()
    assert len(script.asked) == 4


def test_a_server_that_stays_away_is_an_error(client: Client, script: Script) -> None:
    script.answers = [GONE] * 9
    with pytest.raises(ServerError, match="No server answers at http://localhost:8000: Connection refused") as raised:
        client.me()
    assert (raised.value.code, raised.value.exit_status) == ("server", 2) and "fn3hw serve" in raised.value.hint
    assert len(script.asked) == 5


def test_one_submission_is_one_job(client: Client, script: Script) -> None:
    script.answers = [LOST, httpx.Response(503), job("queued")]
    assert client.profile("run-1", wait=False, subnets=4).state == "queued"
    assert len({request.headers["idempotency-key"] for request in script.asked}) == 1
    script.answers = [job("queued")]
    client.profile("run-1", wait=False, subnets=4)
    assert script.asked[-1].headers["idempotency-key"] != script.asked[0].headers["idempotency-key"]


def test_what_is_not_to_be_done_twice_is_not_sent_twice(client: Client, script: Script) -> None:
    script.answers = [LOST, {"token": "fn3hw_1_2"}]
    with pytest.raises(Unreachable):
        client.create_token("mine")
    script.answers = [GONE, {"token": "fn3hw_1_2"}]
    assert client.create_token("mine") == "fn3hw_1_2"


def test_lists_go_over_all_pages(client: Client, script: Script) -> None:
    def workers(*names: str) -> list[dict[str, object]]:
        return [{"name": name, "devices": [], "seen_at": MOMENT} for name in names]

    script.answers = [{"items": workers("a", "b"), "next": "2=="}, {"items": workers("c"), "next": None}]
    assert [worker.name for worker in client.workers()] == ["a", "b", "c"]
    assert [request.url.params.get("after") for request in script.asked] == [None, "2=="]


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_status"),
    [
        (422, "input", InputError, 2),
        (422, "unknown-name", UnknownName, 2),
        (422, "run", RunError, 2),
        (422, "profile", ProfileError, 2),
        (422, "device", DeviceError, 4),
        (422, "noisy", NoisyMeasurement, 5),
        (404, "not-found", UnknownName, 2),
        (409, "conflict", InputError, 2),
        (413, "too-large", InputError, 2),
        (401, "unauthorized", ServerError, 2),
        (403, "forbidden", ServerError, 2),
        (500, "internal", Fn3hwError, 1),
    ],
)
def test_errors_are_those_of_the_shell(
    client: Client, script: Script, status: int, code: str, kind: type[Fn3hwError], exit_status: int
) -> None:
    script.answers = [error(status, code, exit_status=exit_status)]
    with pytest.raises(kind, match=r"It is so\.") as raised:
        client.me()
    assert type(raised.value) is kind and raised.value.exit_status == exit_status
    assert "FN3HW_TOKEN" in raised.value.hint if status == 401 else raised.value.hint == "Do this."


def test_an_infeasible_budget_says_what_can_be_reached(client: Client, script: Script) -> None:
    script.answers = [error(422, "infeasible-budget", exit_status=3, limit="peak_mib", best=12.5)]
    with pytest.raises(InfeasibleBudget) as raised:
        client.lookup("search-1", peak_mib=1.0)
    assert (raised.value.limit, raised.value.best, raised.value.exit_status) == ("peak_mib", 12.5, 3)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<h1>It works</h1>"),
        httpx.Response(200, json={"hello": "world"}),
        httpx.Response(404, text="nothing here"),
        error(404, "not-found", message="There is nothing at this address."),
        httpx.Response(302, headers={"location": "https://elsewhere.example"}),
    ],
)
def test_something_else_that_answers_is_a_server_error(client: Client, script: Script, answer: httpx.Response) -> None:
    script.answers = [answer]
    with pytest.raises(ServerError):
        client.me()
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host", "http://", "http://user:s3same@host", "http://host/?a=b", "http://host:x"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InputError) as raised:
        Client(url)
    assert "s3same" not in str(raised.value)


def test_a_token_is_not_sent_in_plain_text_over_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="plain text") as raised:
        Client("http://fn3hw.example.org", TOKEN)
    assert "https" in raised.value.hint and TOKEN not in str(raised.value)
    for url in ("http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost/", "https://fn3hw.example.org/v1/"):
        assert Client(url, TOKEN).url == url.rstrip("/").removesuffix("/v1")
    Client("http://fn3hw.example.org", TOKEN, allow_plain=True)
    monkeypatch.delenv("FN3HW_TOKEN", raising=False)
    Client("http://fn3hw.example.org")
    monkeypatch.setenv("FN3HW_TOKEN", TOKEN)
    with pytest.raises(ServerError, match="plain text"):
        Client("http://fn3hw.example.org")


def test_a_plain_connection_to_this_machine_uses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert not Client(URL, TOKEN)._connection._http.trust_env


def test_the_token_comes_from_the_environment(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN3HW_TOKEN", f"{TOKEN}\n")
    script.answers = [{"token_id": "t", "scope": "read"}]
    Client(URL, transport=httpx.MockTransport(script)).me()
    assert script.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_the_token_shows_nowhere(
    client: Client, script: Script, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [repr(client), str(vars(client)), str(vars(client._connection)), repr(client._connection._http.auth)]
    for answers in ([GONE] * 5, [LOST] * 5, [error(401, "unauthorized")], [httpx.Response(200, text="?")]):
        script.answers = list(answers)
        with pytest.raises(ServerError) as raised:
            client.me()
        said += [repr(raised.value), "".join(traceback.format_exception(raised.value))]
    with pytest.raises(InputError) as refused:
        Client(URL, f"{TOKEN}\nand more")
    said += ["".join(traceback.format_exception(refused.value)), caplog.text, *capsys.readouterr()]
    assert TOKEN not in "".join(said)


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b"])
def test_an_id_is_one_step_of_a_path(client: Client, name: str) -> None:
    with pytest.raises(InputError):
        client.job(name)


def test_other_characters_of_an_id_are_quoted(client: Client, script: Script) -> None:
    script.answers = [job()]
    client.job("a..b?c")
    assert script.asked[0].url.raw_path == b"/v1/jobs/a..b%3Fc"
