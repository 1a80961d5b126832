"""Jobs: asked for by forms, listed, watched, stopped and tried again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from fn3hw.errors import InputError
from fn3hw.service import catalog
from fn3hw.service.api.shared import After, Id, PartsOf, paged
from fn3hw.service.jobs.desk import OPEN, STATES
from fn3hw.service.jobs.kinds import KINDS, Train, parameters_of
from fn3hw.service.jobs.work import REPEATS, Parameters
from fn3hw.service.models import Device, File, Job, JobFile, Profile, Run, Search
from fn3hw.service.pages.shared import IN_LISTS, Asker, Form, Viewer, page

router = APIRouter()
PER_PAGE = 30
_MANY = ("methods", "level")
"""Fields that a form may give several times."""
_CHOSEN = ("percentile",)
"""Fields that are one of some numbers, which no text is."""
Filter = Annotated[str, Query(max_length=80)]


@router.get("/jobs")
def list_jobs(
    request: Request,
    viewer: Viewer,
    parts: PartsOf,
    kind: Filter = "",
    state: Filter = "",
    device: Filter = "",
    run: Filter = "",
    after: After = None,
) -> Response:
    """Jobs, the newest first."""
    asked = {"kind": kind, "state": state, "device": device, "run": run}
    columns = {"kind": Job.kind, "state": Job.state, "device": Job.device, "run": Job.run_id}
    query = select(Job).options(*IN_LISTS)
    for name, value in asked.items():
        if value:
            query = query.where(columns[name] == value.replace("\x00", ""))
    with parts.database.reading() as session:
        rows: dict[str, Job] = {}
        found = paged(session, query, [Job.created_at, Job.id], PER_PAGE, after, lambda job: _noted(rows, job))
        return page(
            request,
            "jobs.html",
            viewer,
            jobs=list(rows.values()),
            next=found.next,
            after=after,
            asked=asked,
            kinds=list(KINDS),
            states=STATES,
            devices=list(session.scalars(select(Device.name).order_by(Device.name))),
        )


@router.post("/jobs")
def ask_for_job(request: Request, viewer: Asker, parts: PartsOf, form: Form) -> Response:
    """Ask for what a form says, and show how far it is."""
    job, new = parts.desk.submit(parameters_from(form), token_id=viewer.token_id)
    return RedirectResponse(f"/jobs/{job.id}" + ("" if new else "?before=1"), status_code=303)


@router.get("/jobs/{job_id}")
def show_job(request: Request, viewer: Viewer, parts: PartsOf, job_id: Id, before: bool = False) -> Response:
    """One job: how far it is, what it says, and what it ended in."""
    with parts.database.reading() as session:
        return page(request, "job.html", viewer, **_values(session, job_id), before=before)


@router.get("/jobs/{job_id}/now")
def show_state(request: Request, viewer: Viewer, parts: PartsOf, job_id: Id) -> Response:
    """The part of a job's page that changes."""
    with parts.database.reading() as session:
        return page(request, "job_now.html", viewer, **_values(session, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(viewer: Asker, parts: PartsOf, job_id: Id) -> Response:
    """Have a job stop."""
    return RedirectResponse(f"/jobs/{parts.desk.cancel(job_id).id}", status_code=303)


@router.post("/jobs/{job_id}/retry")
def retry_job(viewer: Asker, parts: PartsOf, job_id: Id) -> Response:
    """Ask once more for a job that failed or was cancelled."""
    return RedirectResponse(f"/jobs/{parts.desk.retry(job_id).id}", status_code=303)


@router.post("/jobs/{job_id}/repeat")
def repeat_job(viewer: Asker, parts: PartsOf, job_id: Id) -> Response:
    """Ask for the work of a job that succeeded once more, as another job."""
    with parts.database.reading() as session:
        before = catalog.job(session, job_id)
        wanted = once_more(session, parameters_of(before), before)
    job, _ = parts.desk.submit(wanted, token_id=viewer.token_id)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)


def parameters_from(form: FormData) -> Parameters:
    """What a form asks for. Fields that are empty are left at their defaults; of several values the last one counts.

    Raises:
        InputError: a value does not fit, or there is no such kind of job.
    """
    given = {name: [str(value).strip() for value in form.getlist(name)] for name in form}
    kind = KINDS.get(given.pop("kind", [""])[-1])
    if kind is None:
        raise InputError("The form names no kind of job.", hint="Begin at the overview.")
    fields: dict[str, Any] = {}
    for name, texts in given.items():
        texts = [text for text in texts if text]
        if name == "of" and texts:
            fields["run"], _, fields["profile"] = texts[-1].partition(" ")
        elif name == "run" and texts:
            fields["network" if texts[-1].startswith("network-") else "run"] = texts[-1]
        elif name.startswith("settings.") and texts:
            fields.setdefault("settings", {})[name.partition(".")[2]] = _number(texts[-1])
        elif texts and name in _MANY:
            fields[name] = texts
        elif texts:
            fields[name] = None if texts[-1] == "none" else _number(texts[-1]) if name in _CHOSEN else texts[-1]
    try:
        found = kind.model_validate(fields)
    except ValidationError as error:
        raise told(error) from error
    if isinstance(found, Train):
        found.effective()
    return found


def once_more(session: Session, parameters: Parameters, last: Job | None) -> Parameters:
    """The same work as a job that is not there yet; as the last one while that is not over."""
    if last is None:
        return parameters
    known = parameters_of(last)
    if last.state not in OPEN:
        for repeat in range(known.repeat + 1, REPEATS):
            found = known.model_copy(update={"repeat": repeat})
            if session.get(Job, found.job_id) is None:
                return found
    return known


def told(error: ValidationError) -> InputError:
    """The first thing that does not fit, for people."""
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"]).replace("_", " ") or "The form"
    return InputError(f"{place[:200]}: {str(first['msg'])[:500]}.", hint="Go back and correct it.")


def _values(session: Session, job_id: str) -> dict[str, Any]:
    job = catalog.job(session, job_id)
    files = select(JobFile, File).join(File, File.sha256 == JobFile.sha256).where(JobFile.job_id == job.id)
    return {
        "job": job,
        "is_open": job.state in OPEN,
        "files": [(row, file) for row, file in session.execute(files.order_by(JobFile.name))],
        "run": session.get(Run, job.run_id) if job.run_id else None,
        "profile": session.scalar(select(Profile).where(Profile.job_id == job.id)),
        "search": session.get(Search, job.id),
    }


def _noted(rows: dict[str, Job], job: Job) -> str:
    rows[job.id] = job
    return job.id


def _number(text: str) -> Any:
    """A number where a text is one: recipes take no text for it."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
