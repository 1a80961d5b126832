"""Every route × every scope: who may do what is said here once more, by hand, beside the routes."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fn3hw.service import tokens
from fn3hw.service.api.shared import COOKIE, Parts
from fn3hw.service.tokens import SCOPES
from tests.service.api.conftest import Callers
from tests.service.rows import Ids

READ = """
GET /v1/devices | GET /v1/devices/{name} | GET /v1/workers | GET /v1/networks | GET /v1/networks/{network_id}
GET /v1/runs | GET /v1/runs/{run_id} | GET /v1/profiles | GET /v1/profiles/{profile_id} | GET /v1/searches
GET /v1/searches/{search_id} | GET /v1/atlases/{search_id} | GET /v1/atlases/{search_id}/lookup
GET /v1/artifacts/{sha256} | GET /v1/jobs | GET /v1/jobs/{job_id} | GET /v1/jobs/{job_id}/files
GET /v1/jobs/{job_id}/log | GET /v1/jobs/{job_id}/events | GET /v1/me
"""
SUBMIT = """
POST /v1/devices/{name}/checks | POST /v1/networks | POST /v1/runs | PUT /v1/profiles | POST /v1/trainings
POST /v1/profiles | POST /v1/searches | POST /v1/exports | POST /v1/comparisons | POST /v1/jobs/{job_id}/cancel
POST /v1/jobs/{job_id}/retry
"""
ADMIN = """
PUT /v1/devices/{name} | DELETE /v1/devices/{name} | GET /v1/devices/{name}/command | GET /v1/tokens
POST /v1/tokens | DELETE /v1/tokens/{name} | GET /v1/audit
"""
NEEDED = {
    line.strip(): scope
    for scope, text in zip(SCOPES, (READ, SUBMIT, ADMIN), strict=True)
    for line in text.replace("\n", "|").split("|")
    if line.strip()
}


def routes(app: FastAPI) -> set[str]:
    paths = app.openapi()["paths"]
    return {f"{method.upper()} {path}" for path, by in paths.items() if path.startswith("/v1/") for method in by}


def test_the_matrix_has_every_route(app: FastAPI) -> None:
    assert routes(app) == NEEDED.keys()


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("route", sorted(NEEDED))
def test_every_route_for_every_scope(route: str, callers: Callers, ids: Ids, kind: str) -> None:
    method, template = route.split()
    known = {
        "name": "local",
        "network_id": ids.network,
        "run_id": ids.run,
        "profile_id": ids.profile,
        "search_id": ids.search,
        "sha256": ids.artifact,
        "job_id": ids.jobs["succeeded"],
    }
    path = template.format(**known)
    for scope, client in callers.items():
        answer = client.request(method, path, **({"json": {}} if method in ("POST", "PUT") else {}))
        if scope == "none":
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthorized"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        elif SCOPES.index(scope) < SCOPES.index(NEEDED[route]):
            assert answer.status_code == 403 and NEEDED[route] in answer.json()["error"]["message"]
        else:
            assert answer.status_code not in (401, 403) and answer.status_code < 500, answer.text


@pytest.mark.parametrize("given", ["", "x", "fn3hw_a_b", "é", "a" * 5000])
def test_wrong_tokens(app: FastAPI, given: str) -> None:
    headers = {"Authorization": f"Bearer {given}".encode()}
    assert TestClient(app).get("/v1/jobs", headers=headers).status_code == 401


def test_many_wrong_tokens_close_the_address(app: FastAPI, callers: Callers) -> None:
    assert callers["read"].get("/v1/jobs").status_code == 200
    stranger = TestClient(app, headers={"Authorization": "Bearer fn3hw_a_b"})
    statuses = [stranger.get("/v1/jobs").status_code for _ in range(30)]
    assert statuses[0] == 401 and statuses[-1] == 429
    assert callers["read"].get("/v1/jobs").status_code == 200, "who is known already is served"


def test_a_revoked_token_is_no_longer_good(callers: Callers) -> None:
    assert callers["read"].get("/v1/me").json()["scope"] == "read"
    assert callers["admin"].delete("/v1/tokens/read").status_code == 204
    assert callers["read"].get("/v1/me").status_code == 401


def test_made_tokens_work_and_are_listed_without_their_secret(callers: Callers, app: FastAPI) -> None:
    made = callers["admin"].post("/v1/tokens", json={"name": "new", "scope": "submit", "days": 1}).json()["token"]
    assert TestClient(app, headers={"Authorization": f"Bearer {made}"}).get("/v1/me").json()["scope"] == "submit"
    listed = callers["admin"].get("/v1/tokens")
    assert "new" in [one["name"] for one in listed.json()["items"]] and made.split("_", 2)[2] not in listed.text
    again = callers["admin"].post("/v1/tokens", json={"name": "new", "scope": "read"})
    assert again.status_code == 409 and again.json()["error"]["code"] == "conflict"


def test_another_site_cannot_use_a_browsers_cookie(app: FastAPI, parts: Parts, ids: Ids) -> None:
    cookie, _ = tokens.log_in(parts.database, tokens.create(parts.database, "browser", "admin"))
    client = TestClient(app, cookies={COOKIE: cookie})
    path = f"/v1/jobs/{ids.jobs['failed']}/retry"
    assert client.get("/v1/jobs").status_code == 200
    assert client.post(path).status_code == 403
    assert client.post(path, headers={"Origin": "http://elsewhere"}).status_code == 403
    assert client.post(path, headers={"Origin": "http://testserver"}).status_code == 202


def test_changes_are_in_the_audit_log_and_nothing_else(callers: Callers, ids: Ids) -> None:
    callers["admin"].put("/v1/devices/pi5", json={"command": "ssh secret@pi5 python3 -"})
    callers["submit"].post(f"/v1/jobs/{ids.jobs['queued']}/cancel")
    callers["read"].delete("/v1/devices/pi5")
    callers["read"].get("/v1/jobs")
    answer = callers["admin"].get("/v1/audit")
    found = [(one["action"].split()[0], one["target"], one["status"]) for one in answer.json()["items"]]
    for _ in range(3):
        callers["none"].post("/v1/trainings", json={})
    assert len(callers["admin"].get("/v1/audit").json()["items"]) == 3, "who has no token writes nothing"
    assert found == [
        ("DELETE", "/v1/devices/pi5", 403),
        ("POST", f"/v1/jobs/{ids.jobs['queued']}/cancel", 200),
        ("PUT", "/v1/devices/pi5", 200),
    ]
    assert "secret" not in answer.text


def test_a_devices_command_is_for_administrators(callers: Callers) -> None:
    callers["admin"].put("/v1/devices/pi5", json={"command": "ssh pi@pi5 python3 -"})
    assert callers["admin"].get("/v1/devices/pi5/command").json() == {"command": "ssh pi@pi5 python3 -"}
    for path in ("/v1/devices/pi5", "/v1/devices"):
        assert "ssh" not in callers["submit"].get(path).text
    body: dict[str, Any] = {"device": "pi5", "command": "rm"}
    assert callers["submit"].post("/v1/profiles", json={"run": "x", **body}).status_code == 422
