"""The application: routes, the one error body, headers, limits on bodies, the audit log, and metrics."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import fn3hw
from fn3hw.errors import Fn3hwError, InputError
from fn3hw.service.api import access, devices, jobs, results
from fn3hw.service.api.shared import ERRORS, ErrorBody, ErrorInfo, Parts, error_info
from fn3hw.service.errors import NoRoute, TooLarge, TooMany, Unauthorized, Unavailable, status_of
from fn3hw.service.jobs.desk import STATES
from fn3hw.service.models import Entry, Job, now
from fn3hw.service.pages import add_pages, error_page, wants_page

JSON_BYTES, TOO_MANY = 1 << 20, 429
UPLOADS = {("POST", "/v1/networks"), ("POST", "/v1/runs"), ("PUT", "/v1/profiles")}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_LOG = logging.getLogger("fn3hw.service.requests")


def create_app(parts: Parts, *, closed: Callable[[], None] = lambda: None) -> FastAPI:
    """The server's application.

    Args:
        parts: the open parts of the server.
        closed: called after the last request.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(closed)

    app = FastAPI(
        title="fn3hw",
        version=fn3hw.__version__,
        description="Profile devices, search under measured latency, and look budgets up.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.parts = parts
    app.state.in_thread = run_in_threadpool
    app.state.watcher = jobs.Watcher(parts, run_in_threadpool)
    metrics = Metrics(parts)
    for part in (devices, results, jobs, access):
        app.include_router(part.router)
    app.include_router(_operations(parts, metrics))
    add_pages(app)
    _handle_errors(app)
    app.add_middleware(Frame, parts=parts, metrics=metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


class Metrics:
    """What Prometheus is told."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.registry = CollectorRegistry()
        labels = ["method", "route", "status"]
        self.requests = Counter("fn3hw_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram("fn3hw_request_seconds", "Time to answer.", ["route"], registry=self.registry)
        self._jobs = Gauge("fn3hw_jobs", "Jobs by state.", ["state"], registry=self.registry)

    def text(self) -> bytes:
        """All of it, in the text format."""
        with self._parts.database.reading() as session:
            rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
            found: dict[str, int] = {state: count for state, count in rows}
        for state in STATES:
            self._jobs.labels(state).set(found.get(state, 0))
        return generate_latest(self.registry)


class Frame:
    """Around every request: an id, headers, a limit for its body, a line of the log, the audit log and metrics."""

    def __init__(self, app: ASGIApp, *, parts: Parts, metrics: Metrics) -> None:
        self._app, self._parts, self._metrics = app, parts, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, request_id = time.perf_counter(), secrets.token_hex(8)
        method, path = scope["method"], scope["path"]
        status, started_answer = 500, False
        scope.setdefault("state", {})
        limit = None if (method, path) in UPLOADS else JSON_BYTES

        async def framed(message: Message) -> None:
            nonlocal status, started_answer
            if message["type"] == "http.response.start":
                status, started_answer = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = request_id
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, _bounded(receive, limit) if limit else receive, framed)
        except Exception as error:
            _LOG.error("A bug, in request %s: %s", request_id, type(error).__name__, exc_info=error)
            if started_answer:
                raise
            told = Fn3hwError("Something went wrong inside the server.", hint=f"Its log says more: {request_id}.")
            await _told(Request(scope), told, 500)(scope, receive, framed)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            holder = scope["state"].get("holder")
            token_id = holder.token_id if holder is not None else None
            _LOG.info(
                "%s",
                json.dumps(
                    {
                        "request": request_id,
                        "method": method,
                        "path": path,
                        "status": status,
                        "ms": round(1e3 * seconds, 2),
                        "token": token_id,
                    }
                ),
            ) if _LOG.isEnabledFor(logging.INFO) else None
            # Who has no token writes nothing, but for log-ins, of which an address has few.
            known = token_id is not None or (route == "/login" and status != TOO_MANY)
            if method not in ("GET", "HEAD", "OPTIONS") and known:
                await run_in_threadpool(self._audit, token_id, f"{method} {route}", path, status)

    def _audit(self, token_id: str | None, action: str, target: str, status: int) -> None:
        try:
            with self._parts.database.session() as session:
                session.add(
                    Entry(
                        at=now(),
                        token_id=token_id,
                        action=action[:80],
                        target=target[:200].replace("\x00", ""),
                        status=status,
                    )
                )
        except Fn3hwError as error:
            logging.getLogger(__name__).warning("The audit log lacks %s %s: %s", action, target, error.message)


def _bounded(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            # Of all that is raised while a body is read, FastAPI lets this alone through.
            raise HTTPException(413, f"The body is larger than {limit / 2**20:g} MiB.")
        return message

    return bounded


def _handle_errors(app: FastAPI) -> None:
    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, Fn3hwError)
        status = status_of(error)
        headers = {}
        if isinstance(error, Unauthorized):
            headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, TooMany):
            headers["Retry-After"] = f"{max(1, round(error.after_s))}"
        if isinstance(error, Unavailable):
            headers["Retry-After"] = "5"
        if status == 500:
            logging.getLogger(__name__).error("A bug: %s", error.message, exc_info=error)
        return _told(request, error, status, headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _told(request, _explained(error), 422)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        if error.status_code == 404:
            return _told(request, NoRoute("There is nothing at this address."), 404)
        kind = TooLarge if error.status_code == 413 else InputError
        told = kind(str(error.detail), hint="See /v1/openapi.json")
        return _told(request, told, error.status_code, error.headers)

    app.add_exception_handler(Fn3hwError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(StarletteHTTPException, http)


def _told(request: Request, error: Fn3hwError, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a page for a browser that asked for one, and else as JSON."""
    if wants_page(request):
        return error_page(request, error, status, headers)
    return JSONResponse(error_info(error), status_code=status, headers=headers)


def _explained(error: RequestValidationError) -> InputError:
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"] if step != "body") or "the body"
    return InputError(f"{place[:200]}: {str(first['msg'])[:500]}.", hint="See /v1/openapi.json")


def _operations(parts: Parts, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> PlainTextResponse:
        """The process answers."""
        return PlainTextResponse("ok\n")

    @router.get("/readyz", response_class=PlainTextResponse, responses={503: ERRORS[503]})
    def readyz() -> PlainTextResponse:
        """Database and storage can be used."""
        parts.database.check()
        parts.storage.check()
        return PlainTextResponse("ready\n")

    @router.get("/metrics", response_class=PlainTextResponse, responses={503: ERRORS[503]})
    def prometheus() -> Response:
        """Metrics for Prometheus: counts and times alone, nothing of what is asked for."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["ErrorInfo"] = ErrorInfo.model_json_schema()
        schemas["ErrorBody"] = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas["ErrorBody"].pop("$defs")
        app.openapi_schema = document
    return app.openapi_schema
