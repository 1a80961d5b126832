"""Points of a search: all of them for a chart, and one with all that is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy import select
from starlette.responses import RedirectResponse, Response

from fn3hw.errors import InfeasibleBudget, InputError
from fn3hw.searcher.atlas import Atlas, Point
from fn3hw.service import catalog
from fn3hw.service.api.shared import Id, Parts, PartsOf
from fn3hw.service.errors import NotFound
from fn3hw.service.models import Job, JobFile, Network, Search
from fn3hw.service.pages.columns import columns_of
from fn3hw.service.pages.kept import Kept
from fn3hw.service.pages.shared import MOST_SHOWN, KeptOf, Viewer, packed, page

router = APIRouter()
LIMITS = ("latency_ms", "relative_cost", "peak_mib", "size_mib")


@dataclass(frozen=True)
class Asked:
    """The budgets of a form, as numbers and as they were written."""

    limits: dict[str, float]
    texts: dict[str, str]


def _asked(request: Request) -> Asked:
    texts = {name: request.query_params.get(name, "").strip()[:40] for name in LIMITS}
    return Asked({name: _number(name, text) for name, text in texts.items() if text}, texts)


AskedOf = Annotated[Asked, Depends(_asked)]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was made of a subnet, with what was measured."""

    job: Job
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A point for people.

    Args:
        search: that it is of.
        gates: of its network, with the counts kept.
        point: None where no subnet meets the budgets.
        number: its place in the columns of the search.
        on_front: whether nothing is better in all respects.
        asked: whether it answers budgets, rather than being pointed at.
        limits: the budgets that it answers, or under which an export ends in it.
        refused: why there is no point.
        exports: files made of this subnet.
    """

    search: Search
    gates: list[dict[str, Any]]
    point: dict[str, Any] | None = None
    number: int | None = None
    on_front: bool = True
    asked: bool = False
    limits: Mapping[str, float]
    refused: InfeasibleBudget | InputError | None = None
    exports: list[Exported] | None = None


@router.get("/searches/{search_id}")
def show_search(
    viewer: Viewer,
    parts: PartsOf,
    kept: KeptOf,
    search_id: Id,
    subnet: Annotated[str | None, Query(max_length=20_000)] = None,
) -> Response:
    """A search is shown with its run, and there with one of its subnets."""
    with parts.database.reading() as session:
        search = catalog.search(session, search_id)
    point = "" if subnet is None else f"&point={_number_of(_atlas(parts, kept, search), subnet)}"
    return RedirectResponse(f"/runs/{search.run_id}?search={search.id}{point}", status_code=303)


@router.get("/searches/{search_id}/points.json")
def read_points(request: Request, viewer: Viewer, parts: PartsOf, kept: KeptOf, search_id: Id) -> Response:
    """All points as columns, those on the front first."""
    with parts.database.reading() as session:
        search = catalog.search(session, search_id)
    return packed(request, columns_of(parts, kept, search).packed, tag=f"points-2-{search.atlas_sha256[:32]}")


@router.get("/searches/{search_id}/points/{number}")
def show_point(
    request: Request,
    viewer: Viewer,
    parts: PartsOf,
    kept: KeptOf,
    search_id: Id,
    number: Annotated[int, Path(ge=0, lt=10**7)],
    beside: Annotated[bool, Query()] = False,
) -> Response:
    """One point, by its place in the columns."""
    with parts.database.reading() as session:
        search = catalog.search(session, search_id)
    return page(request, "point.html", viewer, answer=point_of(parts, kept, search, number), beside=beside)


@router.get("/searches/{search_id}/lookup")
def look_up(request: Request, viewer: Viewer, parts: PartsOf, kept: KeptOf, search_id: Id, asked: AskedOf) -> Response:
    """The most accurate point that meets all budgets."""
    with parts.database.reading() as session:
        search = catalog.search(session, search_id)
    return page(request, "point.html", viewer, answer=answer_of(parts, kept, search, asked.limits), beside=False)


def point_of(parts: Parts, kept: Kept, search: Search, number: int) -> Answer:
    """The point at a place of the columns.

    Raises:
        NotFound: there is none.
    """
    atlas = _atlas(parts, kept, search)
    n_front = len(atlas.points)
    if number >= n_front + len(atlas.dominated):
        raise NotFound(f"The search has no point {number}.")
    on_front = number < n_front
    point = atlas.points[number] if on_front else atlas.dominated[number - n_front]
    return _answer(parts, search, point, number, on_front, asked=False, limits=_limits_of(atlas, point))


def answer_of(parts: Parts, kept: Kept, search: Search, limits: Mapping[str, float]) -> Answer:
    """What a lookup answers; that nothing meets the budgets is an answer, too."""
    atlas = _atlas(parts, kept, search)
    try:
        point = atlas.lookup(**limits)
    except (InfeasibleBudget, InputError) as error:
        return Answer(search=search, gates=[], asked=True, limits=limits, refused=error)
    number = next(n for n, one in enumerate(atlas.points) if one.subnet == point.subnet)
    return _answer(parts, search, point, number, True, asked=True, limits=limits)


def _answer(
    parts: Parts, search: Search, point: Point, number: int, on_front: bool, *, asked: bool, limits: Mapping[str, float]
) -> Answer:
    with parts.database.reading() as session:
        network: Network = catalog.network(session, catalog.run(session, search.run_id).network_id)
        query = select(Job).where(Job.kind == "export", Job.run_id == search.run_id, Job.result.is_not(None))
        jobs = [
            job
            for job in session.scalars(query.order_by(Job.created_at.desc()).limit(MOST_SHOWN))
            if job.parameters.get("search") == search.id and (job.result or {}).get("subnet") == point.subnet.id
        ]
        files = select(JobFile).where(JobFile.job_id.in_([job.id for job in jobs]), JobFile.name == "model.onnx")
        models = {file.job_id: file.sha256 for file in session.scalars(files)}
    counts = point.counts
    return Answer(
        search=search,
        gates=[{**gate, "kept": counts[gate["name"]]} for gate in network.gates],
        point={**point.to_json(), "binding": point.binding},
        number=number,
        on_front=on_front,
        asked=asked,
        limits=limits,
        exports=[Exported(job=job, sha256=models.get(job.id)) for job in jobs],
    )


def _atlas(parts: Parts, kept: Kept, search: Search) -> Atlas:
    """The atlas of a search: read once, though a chart and a budget may ask for it at the same time."""
    found = parts.atlases.known(search.id)
    if found is None:
        with kept.making("atlas"):
            found = parts.atlases.open(search.id)
    return found.atlas


def _number_of(atlas: Atlas, subnet: str) -> int:
    """The place of a subnet in the columns."""
    for number, point in enumerate((*atlas.points, *atlas.dominated)):
        if point.subnet.id == subnet:
            return number
    raise NotFound(f"The search has no subnet {subnet[:80]!r}.")


def _limits_of(atlas: Atlas, point: Point) -> dict[str, float]:
    """The fewest budgets that this point keeps and whose answer it is; that of its own cost where there are none."""
    cost = "relative_cost" if atlas.provenance.emulated else "latency_ms"
    costs = {cost: point.latency_ms_high, "peak_mib": point.peak_mib, "size_mib": point.size_mib}
    limits = {name: _up(value) for name, value in costs.items() if math.isfinite(value) and value > 0}
    for names in ((cost,), (cost, "size_mib"), (cost, "peak_mib"), (cost, "peak_mib", "size_mib")):
        wanted = {name: limits[name] for name in names if name in limits}
        if atlas.lookup(**wanted).subnet == point.subnet:
            return wanted
    return {cost: limits[cost]}


def _up(value: float) -> float:
    """A little more, in four digits that a form can show."""
    scale = 10.0 ** (3 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"A budget for {name} is a positive number, not {text!r}.", hint="Such as 2.5")
    return value
