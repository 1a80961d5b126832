"""The pages, put into an application together with the files that they refer to."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from fn3hw.service.pages import comparisons, devices, jobs, login, overview, profiles, runs, searches
from fn3hw.service.pages.kept import Kept
from fn3hw.service.pages.shared import LoginNeeded, to_login


def add_pages(app: FastAPI) -> None:
    """Put the pages, and the files that they refer to, into an application that has ``state.parts``."""
    router = APIRouter(include_in_schema=False)
    for part in (login, overview, runs, searches, profiles, devices, jobs, comparisons):
        router.include_router(part.router)
    app.state.kept = Kept()
    app.include_router(router)
    app.add_exception_handler(LoginNeeded, to_login)
    app.mount("/static", _Static(directory=Path(__file__).parent / "static"), name="static")


class _Static(StaticFiles):
    """Files that a browser may keep, but asks about each time: another version of fn3hw has others."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
