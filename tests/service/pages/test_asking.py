"""Who gets in, and what forms may change: logins, origins, redirects, and jobs asked for by hand."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from fn3hw.service import tokens
from fn3hw.service.api.shared import COOKIE, Parts
from fn3hw.service.models import Device, Entry, Job
from fn3hw.service.pages.shared import local_path
from tests.service.conftest import Hands

from .conftest import HOST, Browsers
from .rows import PROFILE, RUN, SEARCH, Shown

ELSEWHERE = (
    "//evil.example",
    "https://evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "javascript:alert(1)",
    " //evil.example",
    "evil.example",
    "",
)


def test_a_token_becomes_a_cookie(browsers: Browsers, parts: Parts) -> None:
    token = tokens.create(parts.database, "mine", "submit")
    answer = browsers["none"].post("/login", data={"token": f" {token}\n", "next": "/jobs?state=failed"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/jobs?state=failed"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert token not in cookie
    assert browsers["none"].get("/").status_code == 200
    out = browsers["none"].post("/logout")
    assert out.headers["location"] == "/login"
    assert browsers["none"].get("/").status_code == 303


def test_over_https_the_cookie_is_secure(app: object, parts: Parts, browsers: Browsers) -> None:
    token = tokens.create(parts.database, "mine", "read")
    there = {"Origin": "https://testserver"}
    answer = browsers["none"].post("https://testserver/login", data={"token": token}, headers=there)
    assert "Secure" in answer.headers["set-cookie"]


def test_a_cookie_that_was_logged_out_is_of_no_use(browsers: Browsers, parts: Parts) -> None:
    cookie, _ = tokens.log_in(parts.database, tokens.create(parts.database, "mine", "read"))
    browsers["none"].cookies.set(COOKIE, cookie, domain="testserver.local")
    assert browsers["none"].get("/").status_code == 200
    browsers["none"].post("/logout")
    browsers["none"].cookies.set(COOKIE, cookie, domain="testserver.local")
    assert browsers["none"].get("/").status_code == 303


def test_wrong_tokens_are_told_so_and_then_made_to_wait(browsers: Browsers) -> None:
    statuses = [browsers["none"].post("/login", data={"token": "wrong"}).status_code for _ in range(22)]
    assert statuses[:20] == [401] * 20
    assert statuses[20:] == [429] * 2
    answer = browsers["none"].post("/login", data={"token": "wrong"})
    assert "Retry-After" in answer.headers
    assert "Too many wrong tokens" in answer.text


@pytest.mark.parametrize("text", ELSEWHERE)
def test_a_login_leads_to_no_other_place(text: str, browsers: Browsers, parts: Parts) -> None:
    assert local_path(text) == "/"
    page = browsers["none"].get("/login", params={"next": text}).text
    assert "evil.example" not in page
    token = tokens.create(parts.database, "mine", "read")
    answer = browsers["none"].post("/login", data={"token": token, "next": text})
    assert answer.headers["location"] == "/"


def test_a_login_leads_back(browsers: Browsers) -> None:
    there = browsers["none"].get("/jobs?state=failed&kind=train")
    assert there.headers["location"] == "/login?next=%2Fjobs%3Fstate%3Dfailed%26kind%3Dtrain"
    part = browsers["none"].get("/searches/x/lookup", headers={"HX-Request": "true", "Referer": f"{HOST}/runs/x?a=1"})
    assert part.headers["hx-redirect"] == "/login?next=%2Fruns%2Fx%3Fa%3D1"


def unsafe(shown: Shown) -> dict[str, dict[str, str]]:
    return {
        "/login": {"token": "x"},
        "/logout": {},
        "/jobs": {"kind": "train", "recipe": "digits"},
        f"/jobs/{shown.jobs['profile']}/cancel": {},
        f"/jobs/{shown.jobs['check']}/retry": {},
        f"/jobs/{shown.jobs['train']}/repeat": {},
        "/devices": {"name": "new", "command": "local2"},
        "/devices/local/checks": {},
    }


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": ""}])
def test_another_site_changes_nothing(
    headers: dict[str, str], browsers: Browsers, shown: Shown, parts: Parts, hands: Hands
) -> None:
    for address, form in unsafe(shown).items():
        answer = browsers["admin"].post(address, data=form, headers=headers)
        assert answer.status_code == 403, address
    assert hands.put_jobs == [] and hands.taken_back == []
    assert browsers["admin"].get("/").status_code == 200


def test_what_changes_something_takes_its_scope(browsers: Browsers, shown: Shown, hands: Hands) -> None:
    for address, form in unsafe(shown).items():
        if address in ("/login", "/logout"):
            continue
        assert browsers["none"].post(address, data=form).headers["location"].startswith("/login")
        assert browsers["read"].post(address, data=form).status_code == 403, address
    assert browsers["submit"].post("/devices", data={"name": "new", "command": "x"}).status_code == 403
    assert hands.put_jobs == []


FORMS: list[dict[str, str | list[str]]] = [
    {"kind": "train", "recipe": "digits", "name": "mine", "settings.epochs": "3", "repeat": "0"},
    {"kind": "profile", "run": RUN, "device": "pi5", "subnets": "", "threads": "2", "sweep": ["false", "true"]},
    {"kind": "profile", "run": "network-1", "device": "local"},
    {"kind": "search", "of": f"{RUN} {PROFILE}", "evaluations": "50", "cost": "size", "race": ["false"]},
    {"kind": "export", "search": SEARCH, "latency_ms": "0.03", "peak_mib": "", "verify_on": "none", "percentile": "90"},
    {"kind": "compare", "of": f"{RUN} {PROFILE}", "methods": ["random", "evolution"], "seeds": "2"},
]
EXPECTED = [
    {"recipe": "digits", "name": "mine", "settings": {"epochs": 3}},
    {"run": RUN, "device": "pi5", "subnets": None, "threads": 2, "sweep": True},
    {"run": None, "network": "network-1", "device": "local"},
    {"run": RUN, "profile": PROFILE, "evaluations": 50, "cost": "size", "race": False},
    {"search": SEARCH, "latency_ms": 0.03, "peak_mib": None, "verify_on": None, "percentile": 90},
    {"run": RUN, "profile": PROFILE, "methods": ["random", "evolution"], "seeds": 2},
]


@pytest.mark.parametrize(("form", "expected"), list(zip(FORMS, EXPECTED, strict=True)))
def test_forms_ask_for_jobs(
    form: dict[str, str | list[str]],
    expected: dict[str, object],
    browsers: Browsers,
    shown: Shown,
    parts: Parts,
    hands: Hands,
) -> None:
    answer = browsers["submit"].post("/jobs", data=form)
    assert answer.status_code == 303, answer.text
    job_id = answer.headers["location"].removeprefix("/jobs/")
    assert [put[0] for put in hands.put_jobs] == [job_id]
    with parts.database.session() as session:
        job = session.get(Job, job_id)
        assert job is not None
        assert job.parameters.items() >= expected.items()
        assert job.token_id is not None
        entry = session.scalars(select(Entry).order_by(Entry.number.desc())).first()
        assert entry is not None and (entry.action, entry.token_id) == ("POST /jobs", job.token_id)
    assert browsers["submit"].get(f"/jobs/{job_id}").status_code == 200
    assert browsers["submit"].post("/jobs", data=form).headers["location"] == f"/jobs/{job_id}?before=1"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({}, "names no kind"),
        ({"kind": "nonsense"}, "names no kind"),
        ({"kind": "train", "recipe": "nonsense"}, "No recipe is called"),
        ({"kind": "train", "recipe": "digits", "settings.data": "x"}, "data"),
        ({"kind": "search", "of": "run-1 nothing"}, "There is no profile"),
        ({"kind": "search", "of": f"{RUN} {PROFILE}", "evaluations": "many"}, "evaluations"),
        ({"kind": "export", "search": SEARCH}, "give latency_ms"),
        ({"kind": "profile", "run": RUN, "command": "rm"}, "command"),
    ],
)
def test_forms_that_do_not_fit_are_told_why(
    form: dict[str, str], text: str, browsers: Browsers, shown: Shown, hands: Hands
) -> None:
    answer = browsers["submit"].post("/jobs", data=form)
    assert answer.status_code in (404, 422)
    assert text in answer.text
    assert "<h1" in answer.text
    assert hands.put_jobs == []


def test_jobs_are_cancelled_tried_again_and_repeated(browsers: Browsers, shown: Shown, parts: Parts) -> None:
    for address in (f"/jobs/{shown.jobs['profile']}/cancel", f"/jobs/{shown.jobs['check']}/retry"):
        assert browsers["submit"].post(address).headers["location"] == address.rpartition("/")[0]
    with parts.database.session() as session:
        running, failed = (session.get(Job, shown.jobs[kind]) for kind in ("profile", "check"))
        assert running is not None and running.cancel
        assert failed is not None and (failed.state, failed.attempt) == ("queued", 2)
    again = browsers["submit"].post(f"/jobs/{shown.jobs['train']}/repeat").headers["location"]
    assert again != f"/jobs/{shown.jobs['train']}"
    with parts.database.session() as session:
        job = session.get(Job, again.removeprefix("/jobs/"))
        assert job is not None and job.parameters["repeat"] == 1
    assert browsers["submit"].post(f"/jobs/{shown.jobs['train']}/retry").status_code == 409
    with parts.database.session() as session:
        session.execute(update(Job).values(state="succeeded"))
    once_more = browsers["submit"].post(f"/jobs/{shown.jobs['train']}/repeat").headers["location"]
    assert once_more not in (again, f"/jobs/{shown.jobs['train']}")


def test_a_check_is_a_new_one_once_the_last_is_over(browsers: Browsers, parts: Parts, shown: Shown) -> None:
    first = browsers["submit"].post("/devices/local/checks").headers["location"]
    assert browsers["submit"].post("/devices/local/checks").headers["location"] == first
    with parts.database.session() as session:
        job = session.get(Job, first.removeprefix("/jobs/"))
        assert job is not None
        job.state = "succeeded"
    assert browsers["submit"].post("/devices/local/checks").headers["location"] != first


def test_an_administrator_adds_a_device(browsers: Browsers, parts: Parts) -> None:
    form = {"name": "board", "command": "ssh board python3 -", "worker": ""}
    assert browsers["admin"].post("/devices", data=form).headers["location"] == "/devices/board"
    with parts.database.session() as session:
        device = session.get(Device, "board")
        assert device is not None and (device.command, device.worker) == ("ssh board python3 -", None)
    for wrong in (
        {"name": "a b"},
        {"name": ""},
        {"command": ""},
        {"command": "'"},
        {"worker": "a b"},
        {"name": "x" * 65},
    ):
        assert browsers["admin"].post("/devices", data={**form, **wrong}).status_code == 422, wrong


def test_a_large_form_is_refused(browsers: Browsers) -> None:
    answer = browsers["submit"].post("/jobs", data={"kind": "train", "name": "x" * (2 << 20)})
    assert answer.status_code == 413
