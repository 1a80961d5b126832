"""Comparisons of ways to search: their reports, drawn from the files that their jobs ended in."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from fn3hw.service import catalog
from fn3hw.service.api.shared import After, Id, Parts, PartsOf, paged
from fn3hw.service.errors import NotFound
from fn3hw.service.models import File, Job, JobFile, Profile, Run
from fn3hw.service.pages.choices import choices
from fn3hw.service.pages.kept import Kept
from fn3hw.service.pages.shared import KeptOf, Viewer, packed, page

router = APIRouter()
PER_PAGE = 30
REPORT, CURVES = "report/report.json", "report/curves.csv"
_COLUMNS = ("evaluations", "seconds", "mean", "low", "high")


@router.get("/comparisons")
def list_comparisons(request: Request, viewer: Viewer, parts: PartsOf, after: After = None) -> Response:
    """Jobs that compare, the newest first."""
    with parts.database.reading() as session:
        rows: dict[str, Job] = {}

        def noted(job: Job) -> str:
            rows[job.id] = job
            return job.id

        query = select(Job).where(Job.kind == "compare")
        found = paged(session, query, [Job.created_at, Job.id], PER_PAGE, after, noted)
        runs = select(Run).where(Run.id.in_({job.run_id for job in rows.values()}))
        return page(
            request,
            "comparisons.html",
            viewer,
            jobs=list(rows.values()),
            runs={run.id: run for run in session.scalars(runs)},
            next=found.next,
            choices=choices(session),
        )


@router.get("/comparisons/{job_id}")
def show_comparison(request: Request, viewer: Viewer, parts: PartsOf, kept: KeptOf, job_id: Id) -> Response:
    """One report."""
    with parts.database.reading() as session:
        job, files = _found(session, job_id)
        run = session.get(Run, job.run_id) if job.run_id else None
        profile = session.get(Profile, str(job.parameters.get("profile")))
    report = _report(parts, kept, files) if REPORT in files else None
    return page(request, "comparison.html", viewer, job=job, run=run, profile=profile, files=files, report=report)


@router.get("/comparisons/{job_id}/curves.json")
def read_curves(request: Request, viewer: Viewer, parts: PartsOf, kept: KeptOf, job_id: Id) -> Response:
    """Hypervolume on the way and accuracy at the budgets, as columns per method."""
    with parts.database.reading() as session:
        _, files = _found(session, job_id)
    if not {REPORT, CURVES} <= set(files):
        raise NotFound("The comparison has no report yet.")
    key = (files[REPORT].sha256, files[CURVES].sha256)
    body = kept.find(("comparison", *key), lambda: _packed(_report(parts, kept, files), _text(parts, files[CURVES])))
    return packed(request, body, tag=f"comparison-1-{key[0][:16]}{key[1][:16]}")


def _found(session: Session, job_id: str) -> tuple[Job, dict[str, File]]:
    job = catalog.job(session, job_id)
    if job.kind != "compare":
        raise NotFound(f"{job_id} is no comparison.")
    rows = session.execute(
        select(JobFile, File).join(File, File.sha256 == JobFile.sha256).where(JobFile.job_id == job.id)
    )
    return job, {row.name: file for row, file in rows}


def _report(parts: Parts, kept: Kept, files: Mapping[str, File]) -> dict[str, Any]:
    """The report, the best method first."""

    def read() -> dict[str, Any]:
        report: dict[str, Any] = json.loads(_text(parts, files[REPORT]))
        report["methods"].sort(key=_merit, reverse=True)
        return report

    return kept.find(("report", files[REPORT].sha256), read)


def _merit(method: Mapping[str, Any]) -> float:
    unseen = method.get("hypervolume_on_unseen_images") or {}
    return float(unseen.get("mean") or method.get("hypervolume_mean") or 0.0)


def _packed(report: Mapping[str, Any], curves: str) -> bytes:
    found: dict[str, dict[str, Any]] = {
        method["name"]: {"name": method["name"], **{name: [] for name in _COLUMNS}, "budgets": _budgets(method)}
        for method in report["methods"]
    }
    for row in csv.DictReader(io.StringIO(curves)):
        for name in _COLUMNS:
            found[row["method"]][name].append(float(row[name]) if row[name] else None)
    document = json.dumps({"methods": list(found.values())}, separators=(",", ":"))
    return gzip.compress(document.encode(), 6, mtime=0)


def _budgets(method: Mapping[str, Any]) -> dict[str, list[float | None]]:
    rows = sorted((float(budget), found) for budget, found in method["accuracy_at_budget"].items())
    return {
        "budget": [budget for budget, _ in rows],
        "mean": [found["mean"] for _, found in rows],
        "low": [found["ci"][0] for _, found in rows],
        "high": [found["ci"][1] for _, found in rows],
    }


def _text(parts: Parts, file: File) -> str:
    return parts.storage.read(file.sha256).decode(errors="replace")
