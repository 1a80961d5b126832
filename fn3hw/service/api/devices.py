"""Devices, the workers that reach them, and whether they answer."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from fn3hw.errors import InputError
from fn3hw.profiler.devices import LOCAL, NOBODY, parse
from fn3hw.service import catalog
from fn3hw.service.api.jobs import JobModel, Key, ask
from fn3hw.service.api.shared import (
    ERRORS,
    PREFIX,
    Admin,
    After,
    Id,
    Limit,
    Model,
    Page,
    PartsOf,
    Reader,
    Submitter,
    paged,
)
from fn3hw.service.errors import Conflict
from fn3hw.service.jobs.kinds import ID, Check
from fn3hw.service.jobs.work import REPEATS, Repeat
from fn3hw.service.models import Device, Job, Worker, now

router = APIRouter(prefix=PREFIX, tags=["devices"], responses=ERRORS)


class DeviceModel(Model):
    """A device. Its command is for administrators alone: see ``/v1/devices/NAME/command``."""

    name: str
    worker: str | None = Field(description="The worker that reaches it; any where it is null.")
    created_at: datetime
    checked_at: datetime | None
    verdict: str | None = Field(description="Of its last profile: stable or noisy.")
    health: dict[str, Any] | None = Field(description="What its last check found.")


class NewDevice(Model):
    """A device to be added or changed."""

    command: Annotated[str, Field(min_length=1, max_length=4000)] = Field(
        description='Reaches a Python with numpy and onnxruntime, such as "ssh pi@pi5.local python3 -".'
    )
    worker: ID | None = None


class Command(Model):
    """The command that reaches a device."""

    command: str


class WorkerModel(Model):
    """A process that takes jobs."""

    name: str
    devices: list[str]
    seen_at: datetime


@router.get("/devices")
def list_devices(_: Reader, parts: PartsOf, limit: Limit = 50, after: After = None) -> Page[DeviceModel]:
    """All devices, by descending name."""
    with parts.database.reading() as session:
        return paged(session, select(Device), [Device.name], limit, after, DeviceModel.model_validate)


@router.get("/devices/{name}")
def read_device(name: Id, _: Reader, parts: PartsOf) -> DeviceModel:
    """One device."""
    with parts.database.reading() as session:
        return DeviceModel.model_validate(catalog.device(session, name))


@router.get("/devices/{name}/command")
def read_command(name: Id, _: Admin, parts: PartsOf) -> Command:
    """The command that reaches it."""
    with parts.database.reading() as session:
        return Command(command=catalog.device(session, name).command)


@router.put("/devices/{name}")
def put_device(name: Id, body: NewDevice, _: Admin, parts: PartsOf) -> DeviceModel:
    """Add a device, or give a known one another command or worker. Nothing is connected."""
    if (name == LOCAL and body.command != LOCAL) or name == NOBODY:
        raise InputError(f"{name!r} has a meaning of its own.", hint="Choose another name.")
    if len(name) > 64:
        raise InputError("The name of a device has at most 64 characters.")
    if "\x00" in body.command:
        raise InputError("A command has no zero bytes.")
    parse(body.command)

    def put(session: Session) -> DeviceModel:
        device = session.get(Device, name)
        if device is None:
            device = Device(name=name, command=body.command, worker=body.worker, created_at=now())
            session.add(device)
        device.command, device.worker = body.command, body.worker
        session.flush()
        return DeviceModel.model_validate(device)

    return parts.database.add(put)


@router.delete("/devices/{name}", status_code=204)
def delete_device(name: Id, _: Admin, parts: PartsOf) -> Response:
    """Forget a device; its profiles stay."""
    with parts.database.session() as session:
        device = catalog.device(session, name)
        if session.scalar(select(Job.id).where(Job.device == name, Job.state.in_(("queued", "running"))).limit(1)):
            raise Conflict(f"Jobs wait for device {name}, or run there.", hint="Cancel them first.")
        session.delete(device)
    return Response(status_code=204)


@router.post("/devices/{name}/checks", status_code=202)
def check_device(
    name: Id, holder: Submitter, parts: PartsOf, response: Response, repeat: Repeat | None = None, key: Key = None
) -> JobModel:
    """Have a device checked, as it is now: without ``repeat``, a check of before is not found again."""
    number = int(time.time()) % REPEATS if repeat is None else repeat
    return ask(parts, holder, Check(device=name, repeat=number), response, key)


@router.get("/workers")
def list_workers(_: Reader, parts: PartsOf, limit: Limit = 50, after: After = None) -> Page[WorkerModel]:
    """The processes that take jobs, and when they were last seen."""
    with parts.database.reading() as session:
        return paged(session, select(Worker), [Worker.name], limit, after, _worker)


def _worker(row: Worker) -> WorkerModel:
    return WorkerModel(name=row.name, devices=row.devices, seen_at=row.seen_at)
