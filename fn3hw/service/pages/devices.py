"""Devices: whether they answer, what limits trust in them, and who reaches them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from sqlalchemy import select
from starlette.responses import RedirectResponse, Response

from fn3hw.errors import InputError
from fn3hw.service import catalog
from fn3hw.service.api.devices import NewDevice, put_device
from fn3hw.service.api.shared import Id, PartsOf
from fn3hw.service.jobs.kinds import Check
from fn3hw.service.models import Device, Job, Profile, Worker, now
from fn3hw.service.pages.jobs import once_more, told
from fn3hw.service.pages.shared import IN_LISTS, MOST_SHOWN, Administrator, Asker, Form, Viewer, page

router = APIRouter()
SILENT = timedelta(seconds=30)
"""A worker says every few seconds that it is there."""


@router.get("/devices")
def list_devices(
    request: Request, viewer: Viewer, parts: PartsOf, added: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """All devices and workers."""
    with parts.database.reading() as session:
        workers = list(session.scalars(select(Worker).order_by(Worker.name).limit(MOST_SHOWN)))
        return page(
            request,
            "devices.html",
            viewer,
            devices=list(session.scalars(select(Device).order_by(Device.name))),
            workers={worker.name: worker for worker in workers},
            silent=now() - SILENT,
            added=added,
        )


@router.post("/devices")
def add_device(request: Request, viewer: Administrator, parts: PartsOf, form: Form) -> Response:
    """Add a device, or give a known one another command or worker."""
    name = str(form.get("name", "")).strip()
    if not name or any(not (c.isascii() and (c.isalnum() or c in "._-")) for c in name):
        raise InputError(f"{name[:80]!r} is no name for a device.", hint="Use letters, digits, dots, dashes and _.")
    try:
        body = NewDevice(command=str(form.get("command", "")).strip(), worker=str(form.get("worker", "")) or None)
    except ValidationError as error:
        raise told(error) from error
    put_device(name, body, viewer, parts)
    return RedirectResponse(f"/devices/{name}", status_code=303)


@router.get("/devices/{name}")
def show_device(request: Request, viewer: Viewer, parts: PartsOf, name: Id) -> Response:
    """One device: its last check and its profiles."""
    with parts.database.reading() as session:
        device = catalog.device(session, name)
        profiles = select(Profile).where(Profile.device == name).order_by(Profile.created_at.desc())
        jobs = select(Job).options(*IN_LISTS).where(Job.device == name).order_by(Job.created_at.desc())
        workers = select(Worker) if device.worker is None else select(Worker).where(Worker.name == device.worker)
        return page(
            request,
            "device.html",
            viewer,
            device=device,
            profiles=list(session.scalars(profiles.limit(MOST_SHOWN))),
            jobs=list(session.scalars(jobs.limit(10))),
            workers=list(session.scalars(workers.order_by(Worker.name).limit(MOST_SHOWN))),
            silent=now() - SILENT,
        )


@router.post("/devices/{name}/checks")
def check_device(request: Request, viewer: Asker, parts: PartsOf, name: Id) -> Response:
    """Have a device checked now, whatever was found before."""
    with parts.database.reading() as session:
        last = session.scalar(
            select(Job).where(Job.kind == "check", Job.device == name).order_by(Job.created_at.desc()).limit(1)
        )
        wanted = once_more(session, Check(device=name), last)
    job, _ = parts.desk.submit(wanted, token_id=viewer.token_id)
    return RedirectResponse(f"/jobs/{job.id}", status_code=303)
