"""The kinds of jobs: what each takes, which verb and files it becomes, and which rows it ends in."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from fn3hw.cost.evidence import MIN_SUBNETS
from fn3hw.errors import InputError, UnknownName
from fn3hw.profiler.devices import LOCAL
from fn3hw.service import catalog
from fn3hw.service.errors import Conflict
from fn3hw.service.jobs.work import Outcome, Parameters, Rows, Work
from fn3hw.service.models import Device, Job, Network, Profile, Search, now
from fn3hw.service.storage import Storage
from fn3hw.training import Recipe, packaged_recipes, toml

RUN, PROFILE, ORIGIN = "run", "profile.json", "origin.json"
ID = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9._-]+$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Train(Parameters):
    """Train a network: ``fn3hw train``."""

    kind: ClassVar = "train"
    recipe: Annotated[str, Field(max_length=80, description="A packaged recipe.")]
    settings: Annotated[
        dict[str, Any],
        Field(default_factory=dict, max_length=64, description="Fields that differ from the recipe, such as epochs."),
    ]
    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")] = ""

    def effective(self) -> Recipe:
        """The recipe with its changes.

        Raises:
            UnknownName: there is no such recipe or field.
            InputError: a value does not fit, or names a path of the server.
        """
        if self.recipe not in packaged_recipes():
            raise UnknownName("recipe", self.recipe, packaged_recipes())
        for name in ("data", "network"):
            section = self.settings.get(name)
            if isinstance(section, dict) and ("root" in section or "start_from" in section):
                raise InputError("A request cannot name a path of the server: data.root, network.start_from.")
        return Recipe.load(self.recipe).replace(**self.settings)

    def work(self, session: Session) -> Work:
        """Train in the folder ``run``, from the recipe as a file."""
        text = toml.dumps(self.effective().settings())
        return Work(
            arguments=("train", "--recipe", "recipe.toml", "--output", RUN),
            texts={"recipe.toml": text},
            keep=tuple(f"{RUN}/{name}" for name in catalog.RUN_FILES),
            carry=(f"{RUN}/checkpoint-*", f"{RUN}/checkpoint.json", f"{RUN}/history.jsonl", f"{RUN}/run.toml"),
        )

    def finish(self, storage: Storage, outcome: Outcome) -> Rows:
        """A run, and its network."""
        files = {path.removeprefix(f"{RUN}/"): stored for path, stored in outcome.files.items()}
        found = catalog.read_run(storage, files)

        def rows(session: Session, job: Job) -> None:
            job.run_id = job.made = catalog.add_run(session, found, name=self.name or self.recipe, job_id=job.id).id

        return rows


class Check(Parameters):
    """See whether a device answers, and what limits trust in it: ``fn3hw device check``."""

    kind: ClassVar = "check"
    hidden: ClassVar = ("command",)
    device: ID

    def work(self, session: Session) -> Work:
        """Check it."""
        device = catalog.device(session, self.device)
        return Work(arguments=("device", "check", device.name), **_on(device))

    def finish(self, storage: Storage, outcome: Outcome) -> Rows:
        """What the device said; what is known of one that did not answer stays."""

        def rows(session: Session, job: Job) -> None:
            if outcome.document:
                device = catalog.device(session, self.device)
                device.health, device.checked_at = dict(outcome.document), now()

        return rows


class Measure(Parameters):
    """Measure subnets of a run, or of a network without one, on a device: ``fn3hw profile``."""

    kind: ClassVar = "profile"
    run: ID | None = None
    network: ID | None = None
    device: ID = LOCAL
    subnets: Annotated[int | None, Field(ge=MIN_SUBNETS, le=10_000)] = None
    target_mape: Annotated[float | None, Field(gt=0, lt=1)] = None
    minutes: Annotated[float | None, Field(gt=0, le=1440)] = None
    holdout: Annotated[int, Field(ge=0, le=1000)] = 10
    origin: Annotated[ID | None, Field(description="Another device's profile to start from.")] = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    sweep: bool = False
    seed: Seed = 0
    allow_noisy: bool = False

    @model_validator(mode="after")
    def _one_network(self) -> Measure:
        if (self.run is None) == (self.network is None):
            raise ValueError("give run or network")
        return self

    def work(self, session: Session) -> Work:
        """Measure into ``profile.json``."""
        device = catalog.device(session, self.device)
        if self.run is not None:
            run = catalog.run(session, self.run)
            network, folder = catalog.network(session, run.network_id), RUN
            files = catalog.run_files(session, run, folder)
        else:
            network = catalog.network(session, self.network or "")
            # A profile calls a network without a run as its folder is called.
            folder = f"networks/{re.sub(r'[^A-Za-z0-9._-]+', '-', network.name).strip('-.')[:64] or network.id}"
            files = catalog.network_files(network, folder)
        arguments = ["profile", folder, "--device", device.name, "--output", PROFILE]
        arguments += _options(self, ("subnets", "target_mape", "minutes", "holdout", "threads", "seed"))
        arguments += ["--sweep"] * self.sweep + ["--allow-noisy"] * self.allow_noisy
        if self.origin is not None:
            files[ORIGIN] = _fitting(session, network, self.origin).sha256
            arguments += ["--from", ORIGIN]
        return Work(
            arguments=tuple(arguments),
            files=files,
            run_id=self.run,
            keep=(PROFILE,),
            carry=(f"{PROFILE}.journal",),
            **_on(device),
        )

    def finish(self, storage: Storage, outcome: Outcome) -> Rows:
        """A profile, though it be noisy."""
        found = catalog.read_profile(storage, outcome.files[PROFILE])

        def rows(session: Session, job: Job) -> None:
            profile = catalog.add_profile(
                session, found, device=self.device, summary=dict(outcome.document), job_id=job.id
            )
            device = catalog.device(session, self.device)
            device.verdict, device.checked_at, job.made = profile.verdict, now(), profile.id

        return rows


class FindFront(Parameters):
    """Search under measured cost: ``fn3hw search``."""

    kind: ClassVar = "search"
    run: ID
    profile: ID
    evaluations: Annotated[int, Field(ge=0, le=1_000_000)] = 300
    images: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    cost: Literal["latency", "peak", "size", "blocks"] = "latency"
    level: Annotated[tuple[ID, ...], Field(max_length=16)] = ()
    race: bool = True
    seed: Seed = 0

    def work(self, session: Session) -> Work:
        """Search in ``run``, with all that was evaluated before."""
        run = catalog.run(session, self.run)
        profile = _fitting(session, catalog.network(session, run.network_id), self.profile)
        arguments = ["search", RUN, "--profile", PROFILE, *_options(self, ("evaluations", "images", "cost", "seed"))]
        arguments += [part for level in self.level for part in ("--level", level)]
        arguments += ["--race" if self.race else "--no-race"]
        return Work(
            arguments=tuple(arguments),
            files={**catalog.run_files(session, run, RUN), PROFILE: profile.sha256},
            run_id=run.id,
            archive_of=run.id,
            keep=(
                f"{RUN}/atlas-*.json",
                f"{RUN}/evaluators.json",
                f"{RUN}/archive.jsonl",
                f"{RUN}/front.png",
                f"{RUN}/moments.safetensors",
            ),
            carry=(f"{RUN}/moments.safetensors", f"{RUN}/archive.jsonl"),
        )

    def finish(self, storage: Storage, outcome: Outcome) -> Rows:
        """A search with its atlas, and what was evaluated for it."""
        path, atlas = next((path, stored) for path, stored in outcome.files.items() if "/atlas-" in path)
        evaluated = catalog.read_archive(storage, outcome.files[f"{RUN}/archive.jsonl"])
        summary = {key: outcome.document.get(key) for key in ("evaluations", "seconds")}
        summary["points"] = len(outcome.document.get("points", ()))

        def rows(session: Session, job: Job) -> None:
            run, profile = catalog.run(session, self.run), catalog.profile(session, self.profile)
            catalog.add_evaluations(session, run, evaluated)
            catalog.add_run_file(session, run, "moments.safetensors", outcome.files.get(f"{RUN}/moments.safetensors"))
            job.made = job.id
            if session.get(Search, job.id) is None:
                session.add(
                    Search(
                        id=job.id,
                        run_id=run.id,
                        profile_id=profile.id,
                        device=profile.device,
                        atlas_name=path.rpartition("/")[2],
                        atlas_sha256=atlas.sha256,
                        evaluators_sha256=outcome.files[f"{RUN}/evaluators.json"].sha256,
                        summary=summary,
                        job_id=job.id,
                        created_at=now(),
                    )
                )

        return rows


class Budgeted(Parameters):
    """Budgets, at least one."""

    latency_ms: Positive | None = None
    relative_cost: Positive | None = None
    peak_mib: Positive | None = None
    size_mib: Positive | None = None

    @model_validator(mode="after")
    def _some_budget(self) -> Budgeted:
        if not self.limits():
            raise ValueError("give latency_ms, relative_cost, peak_mib or size_mib, or several")
        return self

    def limits(self) -> dict[str, float]:
        """The budgets that are given."""
        found = {name: getattr(self, name) for name in ("latency_ms", "relative_cost", "peak_mib", "size_mib")}
        return {name: value for name, value in found.items() if value is not None}


class Export(Budgeted):
    """Write the ONNX file for a budget and measure it: ``fn3hw export``."""

    kind: ClassVar = "export"
    search: ID
    verify_on: Annotated[ID | None, Field(description="A device; none is measured on where it is null.")] = LOCAL
    percentile: Literal[50, 90] = 50

    def work(self, session: Session) -> Work:
        """Export from the atlas of the search."""
        search = catalog.search(session, self.search)
        run, profile = catalog.run(session, search.run_id), catalog.profile(session, search.profile_id)
        device = catalog.device(session, self.verify_on) if self.verify_on is not None else None
        arguments = ["export", RUN, "--profile", PROFILE, "--output", "model.onnx"]
        arguments += ["--verify-on", device.name if device is not None else "none"]
        arguments += _options(self, ("percentile", *self.limits()))
        return Work(
            arguments=tuple(arguments),
            files={
                **catalog.run_files(session, run, RUN),
                PROFILE: profile.sha256,
                f"{RUN}/{search.atlas_name}": search.atlas_sha256,
                f"{RUN}/evaluators.json": search.evaluators_sha256,
            },
            run_id=run.id,
            keep=("model.onnx",),
            **(_on(device) if device is not None else {}),
        )


class Compare(Parameters):
    """Compare ways to search: ``fn3hw compare``."""

    kind: ClassVar = "compare"
    run: ID
    profile: ID
    methods: Annotated[tuple[ID, ...], Field(max_length=32)] = ()
    seeds: Annotated[int, Field(ge=1, le=100)] = 5
    evaluations: Annotated[int, Field(ge=2, le=1_000_000)] = 300
    latency_ms: Annotated[tuple[Positive, ...], Field(max_length=100)] = ()
    images: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    final_images: Annotated[int | None, Field(ge=1, le=10_000_000)] = None

    def work(self, session: Session) -> Work:
        """Compare into ``report``."""
        run = catalog.run(session, self.run)
        profile = _fitting(session, catalog.network(session, run.network_id), self.profile)
        arguments = ["compare", RUN, "--profile", PROFILE, "--output", "report"]
        arguments += _options(self, ("seeds", "evaluations", "images", "final_images"))
        arguments += [part for method in self.methods for part in ("--method", method)]
        arguments += [part for budget in self.latency_ms for part in ("--latency-ms", repr(budget))]
        return Work(
            arguments=tuple(arguments),
            files={**catalog.run_files(session, run, RUN), PROFILE: profile.sha256},
            run_id=run.id,
            keep=("report/*.html", "report/*.png", "report/*.csv", "report/*.json"),
            carry=(f"{RUN}/moments.safetensors", "report/archive.jsonl", "report/plays/*.csv"),
        )


KINDS: dict[str, type[Parameters]] = {kind.kind: kind for kind in (Train, Check, Measure, FindFront, Export, Compare)}


def parameters_of(job: Job) -> Parameters:
    """What a job was asked for."""
    return KINDS[job.kind].model_validate(job.parameters)


def _fitting(session: Session, network: Network, profile_id: str) -> Profile:
    profile = catalog.profile(session, profile_id)
    if profile.architecture != network.architecture:
        raise Conflict(
            f"Profile {profile.id} is of another network than {network.id}.",
            hint="Profile this network on the device first.",
        )
    return profile


def _on(device: Device) -> dict[str, Any]:
    return {"device": device.name, "command": device.command}


def _options(parameters: Parameters, names: tuple[str, ...]) -> list[str]:
    found = [(name, getattr(parameters, name)) for name in names]
    return [part for name, value in found if value is not None for part in (f"--{name.replace('_', '-')}", str(value))]
