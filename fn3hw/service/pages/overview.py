"""The first page: what happened lately, and what can be begun."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import func, select
from starlette.responses import Response

from fn3hw.service.api.shared import PartsOf
from fn3hw.service.jobs.desk import OPEN
from fn3hw.service.models import Device, Job, Profile, Run, Search
from fn3hw.service.pages.choices import choices
from fn3hw.service.pages.shared import IN_LISTS, Viewer, page

router = APIRouter()
RECENT = 8


@router.get("/")
def overview(request: Request, viewer: Viewer, parts: PartsOf) -> Response:
    """Recent jobs, runs and devices, and a form for each kind of job."""
    with parts.database.reading() as session:
        jobs = list(
            session.scalars(select(Job).options(*IN_LISTS).order_by(Job.created_at.desc(), Job.id.desc()).limit(RECENT))
        )
        searches = select(Search.run_id, func.count().label("n")).group_by(Search.run_id).subquery()
        runs = session.execute(
            select(Run, searches.c.n)
            .outerjoin(searches, searches.c.run_id == Run.id)
            .order_by(Run.created_at.desc())
            .limit(RECENT)
        )
        return page(
            request,
            "overview.html",
            viewer,
            jobs=jobs,
            any_open=any(job.state in OPEN for job in jobs),
            runs=[(run, n or 0) for run, n in runs],
            devices=list(session.scalars(select(Device).order_by(Device.name).limit(RECENT))),
            profiles=list(session.scalars(select(Profile).order_by(Profile.created_at.desc()).limit(RECENT))),
            choices=choices(session),
        )
