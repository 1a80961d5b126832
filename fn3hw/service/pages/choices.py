"""What the forms that ask for jobs can choose from."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from fn3hw.baselines.methods import method_names
from fn3hw.profiler.devices import LOCAL
from fn3hw.service.models import Device, Network, Profile, Run, Search
from fn3hw.service.pages.shared import MOST_SHOWN
from fn3hw.training import packaged_recipes

DEFAULT_RECIPE = "digits"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Rows that jobs can be asked for about, the newest first.

    Args:
        devices: names.
        runs: all, or the one of a page.
        networks: those without a run.
        pairs: runs with the profiles of their networks.
        searches: with their runs and profiles.
        recipes: names of the packaged ones.
        methods: names of ways to search.
    """

    devices: list[str]
    runs: list[Run]
    networks: list[Network]
    pairs: list[tuple[Run, Profile]]
    searches: list[tuple[Search, Run, Profile]]
    recipes: list[str] = field(default_factory=packaged_recipes)
    methods: list[str] = field(default_factory=method_names)
    default_recipe: str = DEFAULT_RECIPE
    default_device: str = LOCAL

    @property
    def quantities(self) -> set[str]:
        """What the costs of the searches are."""
        return {profile.quantity for _, _, profile in self.searches}


def bare_networks() -> Select[Network]:
    """Networks that no run is of, the newest first."""
    return select(Network).where(~exists().where(Run.network_id == Network.id)).order_by(Network.created_at.desc())


def choices(session: Session, run: Run | None = None) -> Choices:
    """What there is, or what there is of one run."""
    runs = select(Run)
    pairs = (
        select(Run, Profile)
        .join(Network, Network.id == Run.network_id)
        .join(Profile, Profile.architecture == Network.architecture)
    )
    searches = (
        select(Search, Run, Profile).join(Run, Run.id == Search.run_id).join(Profile, Profile.id == Search.profile_id)
    )
    if run is not None:
        of = Run.id == run.id
        runs, pairs, searches = runs.where(of), pairs.where(of), searches.where(of)
    return Choices(
        devices=list(session.scalars(select(Device.name).order_by(Device.name))),
        runs=list(session.scalars(runs.order_by(Run.created_at.desc()).limit(MOST_SHOWN))),
        networks=list(session.scalars(bare_networks().limit(MOST_SHOWN))) if run is None else [],
        pairs=[
            (one, profile)
            for one, profile in session.execute(pairs.order_by(Profile.created_at.desc()).limit(MOST_SHOWN))
        ],
        searches=[
            (search, one, profile)
            for search, one, profile in session.execute(searches.order_by(Search.created_at.desc()).limit(MOST_SHOWN))
        ],
    )
