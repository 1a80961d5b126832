"""The pages in this process, with rows to look at, and a browser of each scope."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fn3hw.service import tokens
from fn3hw.service.api.app import create_app
from fn3hw.service.api.shared import COOKIE, Parts
from fn3hw.service.tokens import SCOPES

from .rows import Shown, fill

HOST = "http://testserver"
Browsers = dict[str, TestClient]


@pytest.fixture
def kind() -> str:
    """One kind of database is enough here."""
    return "sqlite"


@pytest.fixture
def shown(parts: Parts) -> Shown:
    return fill(parts)


@pytest.fixture
def app(parts: Parts) -> FastAPI:
    return create_app(parts)


def browser(app: FastAPI, cookie: str | None = None) -> TestClient:
    client = TestClient(
        app,
        base_url=HOST,
        headers={"Accept": "text/html,*/*", "Origin": HOST},
        follow_redirects=False,
        raise_server_exceptions=False,
    )
    if cookie:
        client.cookies.set(COOKIE, cookie, domain="testserver.local")
    return client


@pytest.fixture
def browsers(app: FastAPI, parts: Parts) -> Iterator[Browsers]:
    """One for each scope, and ``"none"``, which is not logged in."""
    found = {"none": browser(app)}
    for scope in SCOPES:
        found[scope] = browser(app, tokens.log_in(parts.database, tokens.create(parts.database, scope, scope))[0])
    yield found
    for client in found.values():
        client.close()
