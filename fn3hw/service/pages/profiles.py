"""Profiles: how far a measurement can be trusted, and what the parts of the network cost there."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import select
from starlette.responses import Response

from fn3hw.profiler import Profile as ProfileRecord
from fn3hw.service import catalog
from fn3hw.service.api.shared import Id, Parts, PartsOf
from fn3hw.service.models import Network, Profile, Run, Search
from fn3hw.service.pages.curves import curves_of
from fn3hw.service.pages.kept import Kept
from fn3hw.service.pages.shared import MOST_SHOWN, KeptOf, Viewer, packed, page

router = APIRouter()


@router.get("/profiles/{profile_id}")
def show_profile(request: Request, viewer: Viewer, parts: PartsOf, kept: KeptOf, profile_id: Id) -> Response:
    """One profile: verdict, reasons, noise and error; its curves come after it."""
    with parts.database.reading() as session:
        profile = catalog.profile(session, profile_id)
        runs = select(Run).join(Network, Network.id == Run.network_id)
        runs = runs.where(Network.architecture == profile.architecture).order_by(Run.created_at.desc())
        searches = select(Search).where(Search.profile_id == profile.id).order_by(Search.created_at.desc())
        return page(
            request,
            "profile.html",
            viewer,
            profile=profile,
            facts=_facts(parts, kept, profile),
            runs=list(session.scalars(runs.limit(MOST_SHOWN))),
            searches=list(session.scalars(searches.limit(MOST_SHOWN))),
        )


@router.get("/profiles/{profile_id}/curves")
def show_curves(request: Request, viewer: Viewer, parts: PartsOf, kept: KeptOf, profile_id: Id) -> Response:
    """What each gate costs, as a table and as charts."""
    with parts.database.reading() as session:
        profile = catalog.profile(session, profile_id)
    return page(request, "curves.html", viewer, profile=profile, curves=curves_of(parts, kept, profile))


@router.get("/profiles/{profile_id}/curves.json")
def read_curves(request: Request, viewer: Viewer, parts: PartsOf, kept: KeptOf, profile_id: Id) -> Response:
    """The curves as columns."""
    with parts.database.reading() as session:
        profile = catalog.profile(session, profile_id)
    return packed(request, curves_of(parts, kept, profile).packed, tag=f"curves-1-{profile.sha256[:32]}")


def _facts(parts: Parts, kept: Kept, profile: Profile) -> dict[str, Any]:
    """What the file says of itself."""

    def read() -> dict[str, Any]:
        record = ProfileRecord.from_text(parts.storage.read(profile.sha256).decode(errors="replace"))
        return {
            "network": record.network.name,
            "measured": len(record.measurements),
            "held_out": len(record.held_out),
            "reference": record.reference.model_dump(),
            "noise": record.noise.model_dump(),
            "device": record.device,
            "runtime": record.settings.get("runtime", {}),
            "reasons": list(record.reasons),
            "advice": list(record.advice),
        }

    return kept.find(("facts", profile.sha256), read)
