"""The API in this process, filled with made-up rows, and a caller of each scope."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fn3hw.service import tokens
from fn3hw.service.api.app import create_app
from fn3hw.service.api.shared import Parts
from fn3hw.service.tokens import SCOPES
from tests.service.rows import Ids, fill

Callers = dict[str, TestClient]


@pytest.fixture
def ids(parts: Parts) -> Ids:
    return fill(parts)


@pytest.fixture
def app(parts: Parts) -> FastAPI:
    return create_app(parts)


@pytest.fixture
def callers(app: FastAPI, parts: Parts) -> Iterator[Callers]:
    """A client for each scope, and ``"none"`` without a token."""
    found = {"none": TestClient(app, raise_server_exceptions=False)}
    for scope in SCOPES:
        token = tokens.create(parts.database, scope, scope)
        headers = {"Authorization": f"Bearer {token}"}
        found[scope] = TestClient(app, headers=headers, raise_server_exceptions=False)
    yield found
    for client in found.values():
        client.close()
