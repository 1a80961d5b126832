"""What jobs end in: networks, runs, profiles, searches with their atlases, and files."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import func, select

from fn3hw.errors import InputError
from fn3hw.service import catalog
from fn3hw.service.api.shared import ERRORS, PREFIX, After, Id, Limit, Model, Page, PartsOf, Reader, Submitter, paged
from fn3hw.service.models import Evaluation, File, Network, Profile, Run, Search
from fn3hw.service.upload import receive_network, receive_profile, receive_run

router = APIRouter(prefix=PREFIX, tags=["results"], responses=ERRORS)
Budget = Annotated[float | None, Query(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
TAR: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class NetworkModel(Model):
    """A supernet."""

    id: str
    name: str
    digest: str
    architecture: str = Field(description="Profiles belong to this: graph and gates, whatever the weights.")
    gates: list[dict[str, Any]]
    n_blocks: int
    input_shape: list[int]
    n_classes: int
    onnx_sha256: str = Field(description="Of its file.")
    space_sha256: str
    created_at: datetime


class RunModel(Model):
    """A trained network with its settings."""

    id: str
    name: str
    network_id: str
    recipe: dict[str, Any]
    job_id: str | None
    created_at: datetime


class RunDetails(RunModel):
    """A run with its files and how much was evaluated."""

    files: dict[str, str] = Field(description="SHA-256 by name.")
    evaluations: int


class ProfileModel(Model):
    """Measurements of a network on a device."""

    id: str
    device: str
    architecture: str
    sha256: str
    verdict: str
    quantity: str
    summary: dict[str, Any]
    job_id: str | None
    created_at: datetime


class SearchModel(Model):
    """A finished search; its atlas has the same id."""

    id: str
    run_id: str
    profile_id: str
    device: str
    atlas_sha256: str
    summary: dict[str, Any]
    job_id: str | None
    created_at: datetime


class PointModel(Model):
    """An evaluated subnet with its predicted cost."""

    subnet: str
    emulated: bool
    latency_ms: float | None
    latency_ms_low: float | None
    latency_ms_high: float | None
    peak_mib: float | None
    size_mib: float | None
    accuracy: float | None
    evaluated_accuracy: float | None
    relative_cost: float | None = None
    relative_cost_low: float | None = None
    relative_cost_high: float | None = None


class FoundPoint(PointModel):
    """The answer to a budget."""

    counts: dict[str, int]
    binding: str | None


class AtlasModel(Model):
    """The front of a search, by ascending cost, and how many evaluated subnets lie behind it."""

    id: str
    run_id: str
    device: str
    points: list[PointModel]
    n_points: int
    n_dominated: int


@router.get("/networks")
def list_networks(_: Reader, parts: PartsOf, limit: Limit = 50, after: After = None) -> Page[NetworkModel]:
    """Networks, the newest first."""
    with parts.database.reading() as session:
        return paged(
            session, select(Network), [Network.created_at, Network.id], limit, after, NetworkModel.model_validate
        )


@router.post("/networks", status_code=201, openapi_extra=TAR)
async def add_network(request: Request, _: Submitter, parts: PartsOf, name: Name) -> NetworkModel:
    """Upload an exported network: a tar of ``supernet.onnx`` and ``space.json``. It can be profiled, not searched."""
    return NetworkModel.model_validate(await receive_network(request, parts, name))


@router.get("/networks/{network_id}")
def read_network(network_id: Id, _: Reader, parts: PartsOf) -> NetworkModel:
    """One network."""
    with parts.database.reading() as session:
        return NetworkModel.model_validate(catalog.network(session, network_id))


@router.get("/runs")
def list_runs(
    _: Reader, parts: PartsOf, network: str | None = None, limit: Limit = 50, after: After = None
) -> Page[RunModel]:
    """Runs, the newest first."""
    query = select(Run)
    if network is not None:
        query = query.where(Run.network_id == network.replace("\x00", ""))
    with parts.database.reading() as session:
        return paged(session, query, [Run.created_at, Run.id], limit, after, RunModel.model_validate)


@router.post("/runs", status_code=201, openapi_extra=TAR)
async def add_run(request: Request, _: Submitter, parts: PartsOf, name: Name) -> RunModel:
    """Upload a trained run: a tar of the files of its folder, as ``fn3hw push`` makes it."""
    return RunModel.model_validate(await receive_run(request, parts, name))


@router.get("/runs/{run_id}")
def read_run(run_id: Id, _: Reader, parts: PartsOf) -> RunDetails:
    """One run."""
    with parts.database.reading() as session:
        row = catalog.run(session, run_id)
        files = {path.partition("/")[2]: sha256 for path, sha256 in catalog.run_files(session, row, "").items()}
        count = session.scalar(select(func.count()).select_from(Evaluation).where(Evaluation.run_id == row.id)) or 0
        return RunDetails(**RunModel.model_validate(row).model_dump(), files=files, evaluations=count)


@router.get("/profiles")
def list_profiles(
    _: Reader,
    parts: PartsOf,
    device: str | None = None,
    architecture: str | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[ProfileModel]:
    """Profiles, the newest first."""
    query = select(Profile)
    for column, value in ((Profile.device, device), (Profile.architecture, architecture)):
        if value is not None:
            query = query.where(column == value.replace("\x00", ""))
    with parts.database.reading() as session:
        return paged(session, query, [Profile.created_at, Profile.id], limit, after, ProfileModel.model_validate)


@router.put(
    "/profiles",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def add_profile(
    request: Request, _: Submitter, parts: PartsOf, device: Annotated[str, Query(min_length=1, max_length=64)]
) -> ProfileModel:
    """Upload a profile file that was measured elsewhere."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", device):
        raise InputError(f"{device[:80]!r} is no name for a device.")
    return ProfileModel.model_validate(await receive_profile(request, parts, device))


@router.get("/profiles/{profile_id}")
def read_profile(profile_id: Id, _: Reader, parts: PartsOf) -> ProfileModel:
    """One profile."""
    with parts.database.reading() as session:
        return ProfileModel.model_validate(catalog.profile(session, profile_id))


@router.get("/searches")
def list_searches(
    _: Reader,
    parts: PartsOf,
    run: str | None = None,
    device: str | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[SearchModel]:
    """Finished searches, the newest first."""
    query = select(Search)
    for column, value in ((Search.run_id, run), (Search.device, device)):
        if value is not None:
            query = query.where(column == value.replace("\x00", ""))
    with parts.database.reading() as session:
        return paged(session, query, [Search.created_at, Search.id], limit, after, SearchModel.model_validate)


@router.get("/searches/{search_id}")
def read_search(search_id: Id, _: Reader, parts: PartsOf) -> SearchModel:
    """One search."""
    with parts.database.reading() as session:
        return SearchModel.model_validate(catalog.search(session, search_id))


@router.get("/atlases/{search_id}", response_model_exclude_unset=True)
def read_atlas(
    search_id: Id,
    _: Reader,
    parts: PartsOf,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Points, spread over the front.")] = 1000,
) -> AtlasModel:
    """The front that a search ended in."""
    found = parts.atlases.open(search_id)
    points = sorted(found.atlas.points, key=lambda point: point.latency_ms)
    if len(points) > limit:
        step = (len(points) - 1) / max(1, limit - 1)
        points = [points[round(number * step)] for number in range(limit)]
    return AtlasModel(
        id=search_id,
        run_id=found.run_id,
        device=found.device,
        points=[PointModel(**point.to_json()) for point in points],
        n_points=len(found.atlas.points),
        n_dominated=len(found.atlas.dominated),
    )


@router.get("/atlases/{search_id}/lookup", response_model=FoundPoint)
async def lookup(
    search_id: Id,
    _: Reader,
    parts: PartsOf,
    request: Request,
    latency_ms: Budget = None,
    relative_cost: Budget = None,
    peak_mib: Budget = None,
    size_mib: Budget = None,
) -> Response:
    """The most accurate subnet that meets all budgets. Needs no measurement and no evaluation."""
    given = {
        "latency_ms": latency_ms,
        "relative_cost": relative_cost,
        "peak_mib": peak_mib,
        "size_mib": size_mib,
    }
    limits = {name: value for name, value in given.items() if value is not None}
    if not limits:
        raise InputError("No budget is given.", hint="Give latency_ms, peak_mib or size_mib, or several.")
    found = parts.atlases.known(search_id)
    if found is None:
        found = await request.app.state.in_thread(lambda: parts.atlases.open(search_id))
    return Response(found.answer(limits), media_type="application/json")


@router.get(
    "/artifacts/{sha256}",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        416: {"description": "The file does not have that range."},
    },
)
def read_artifact(
    sha256: Id,
    _: Reader,
    parts: PartsOf,
    range_: Annotated[str | None, Header(alias="Range", max_length=100)] = None,
    name: Annotated[str | None, Query(max_length=120, pattern=r"^[A-Za-z0-9._-]+$")] = None,
) -> Response:
    """The content of a file, or a range of it; it is what its digest says for ever."""
    with parts.database.reading() as session:
        file: File = catalog.file(session, sha256)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{file.sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'attachment; filename="{name or file.sha256[:16]}"',
    }
    start, end, status = 0, file.size, 200
    if range_ is not None and (asked := re.fullmatch(r"bytes=(\d*)-(\d*)", range_.strip())) and any(asked.groups()):
        first, last = asked.groups()
        start = int(first) if first else max(0, file.size - int(last))
        end = min(file.size, int(last) + 1) if first and last else file.size
        if start >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{file.size}"})
        status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(
        parts.storage.chunks(file.sha256, start, end - start),
        status_code=status,
        media_type="application/octet-stream",
        headers=headers,
    )
