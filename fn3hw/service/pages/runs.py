"""Runs, and a run with its searches and the front of one of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy import func, select
from starlette.responses import Response

from fn3hw.service import catalog
from fn3hw.service.api.shared import After, Id, Parts, PartsOf, paged
from fn3hw.service.errors import NotFound
from fn3hw.service.jobs.desk import OPEN
from fn3hw.service.models import Evaluation, Job, Profile, Run, RunFile, Search
from fn3hw.service.pages.choices import bare_networks, choices
from fn3hw.service.pages.columns import columns_of
from fn3hw.service.pages.kept import Kept
from fn3hw.service.pages.searches import Answer, Asked, AskedOf, answer_of, point_of
from fn3hw.service.pages.shared import IN_LISTS, MOST_SHOWN, KeptOf, Viewer, page

router = APIRouter()
PER_PAGE = 50
Chosen = Annotated[str | None, Query(max_length=80)]


@router.get("/runs")
def list_runs(request: Request, viewer: Viewer, parts: PartsOf, after: After = None) -> Response:
    """All runs, the newest first."""
    with parts.database.reading() as session:
        found = paged(session, select(Run), [Run.created_at, Run.id], PER_PAGE, after, lambda run: run.id)
        rows = {run.id: run for run in session.scalars(select(Run).where(Run.id.in_(found.items)))}
        runs = [rows[key] for key in found.items]
        networks = list(session.scalars(bare_networks().limit(MOST_SHOWN))) if after is None else []
        return page(request, "runs.html", viewer, runs=runs, next=found.next, networks=networks)


@router.get("/runs/{run_id}")
def show_run(
    request: Request,
    viewer: Viewer,
    parts: PartsOf,
    kept: KeptOf,
    run_id: Id,
    asked: AskedOf,
    search: Chosen = None,
    beside: Chosen = None,
    point: Annotated[int | None, Query(ge=0, lt=10**7)] = None,
) -> Response:
    """A run: its searches, the front of one, and what answers a budget."""
    with parts.database.reading() as session:
        run = catalog.run(session, run_id)
        network = catalog.network(session, run.network_id)
        found = choices(session, run)
        jobs = (
            select(Job)
            .options(*IN_LISTS)
            .where(Job.run_id == run.id, Job.state.in_(OPEN))
            .order_by(Job.created_at.desc())
        )
        files = select(RunFile).where(RunFile.run_id == run.id).order_by(RunFile.path)
        count = select(func.count()).select_from(Evaluation).where(Evaluation.run_id == run.id)
        values: dict[str, Any] = {
            "run": run,
            "network": network,
            "choices": found,
            "jobs": list(session.scalars(jobs.limit(MOST_SHOWN))),
            "files": list(session.scalars(files)),
            "evaluations": session.scalar(count) or 0,
        }
    searches = {one.id: (one, profile) for one, _, profile in found.searches}
    shown = _shown(searches, search)
    other = searches.get(beside) if beside and shown is not None and beside != shown[0].id else None
    if shown is not None:
        columns = columns_of(parts, kept, shown[0])
        values |= {"columns": columns, "rows": columns.spread(), "answer": _answer(parts, kept, shown[0], asked, point)}
    return page(
        request, "run.html", viewer, **values, shown=shown, other=other, searches=list(searches.values()), asked=asked
    )


def _shown(searches: dict[str, tuple[Search, Profile]], asked: str | None) -> tuple[Search, Profile] | None:
    if asked:
        if asked not in searches:
            raise NotFound(f"This run has no search {asked!r}.")
        return searches[asked]
    return next(iter(searches.values()), None)


def _answer(parts: Parts, kept: Kept, search: Search, asked: Asked, point: int | None) -> Answer | None:
    """What a browser without scripts asked for in the address of the page."""
    if point is not None:
        return point_of(parts, kept, search, point)
    return answer_of(parts, kept, search, asked.limits) if asked.limits else None
