"""Whatever is sent, what comes back is what the OpenAPI document says, and never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from fn3hw.service import tokens
from fn3hw.service.api.app import create_app
from fn3hw.service.api.shared import Parts
from fn3hw.service.atlases import Atlases
from fn3hw.service.database import Database
from fn3hw.service.jobs.desk import Desk
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage
from tests.service.api.test_access import NEEDED
from tests.service.conftest import Hands
from tests.service.rows import fill


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """An application with rows, and an admin's token."""
    folder = tmp_path_factory.mktemp("openapi")
    database = Database(f"sqlite:///{folder}/rows.sqlite")
    made = Settings(data=folder, upload_mib=8, requests_per_s=0)
    storage = Storage(str(folder / "files"), folder / "incoming")
    parts = Parts(made, database, storage, Desk(database, Hands()), Atlases(database, storage))
    from fn3hw.service.models import Device, now

    with database.session() as session:
        session.add(Device(name="local", command="local", created_at=now()))
    fill(parts)
    parts.limiter.failed = lambda _: None  # type: ignore[method-assign]
    yield create_app(parts), tokens.create(database, "admin", "admin")
    database.close()


@pytest.fixture(scope="module")
def schema(served: tuple[Any, str]) -> Any:
    app, _ = served
    found = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    # What no schema can say is said by a 422: a recipe that is unknown, a budget that cannot be met.
    found.config.checks.positive_data_acceptance.expected_statuses = ["2xx", "401", "404", "409", "422"]
    return found


@schemathesis.serializer("application/x-tar")
def as_bytes(_: Any, value: Any) -> bytes:
    """The body of an upload as it is."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


ROUTES = [*sorted(NEEDED), "GET /healthz", "GET /readyz", "GET /metrics"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("scope", ["none", "admin"])
def test_every_answer_is_as_described(route: str, scope: str, schema: Any, served: tuple[Any, str]) -> None:
    method, path = route.split()
    headers = {"Authorization": f"Bearer {served[1]}"} if scope == "admin" else {}

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(schema[path][method].as_strategy())
    def check(case: schemathesis.Case) -> None:
        if path.endswith("/events"):
            case.path_parameters = {"job_id": "check-succeeded"}  # the stream of an open job does not end
        answer = case.call_and_validate(headers=headers)
        if scope == "none" and path.startswith("/v1/"):
            assert answer.status_code == 401 or answer.status_code in (404, 405, 422)

    check()


def test_every_route_is_asked(schema: Any) -> None:
    assert {operation.ok().label for operation in schema.get_all_operations()} == set(ROUTES)
