"""Rows to look at: a network that was measured, its run, searches on two devices, and jobs of all kinds and states."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fn3hw.cost import fit_cost
from fn3hw.profiler import Profile as ProfileRecord
from fn3hw.searcher import Atlas, Point
from fn3hw.searcher.atlas import Provenance
from fn3hw.service import catalog
from fn3hw.service.api.shared import Parts
from fn3hw.service.models import Device, Job, Network, Profile, Run, Search, Worker, now
from fn3hw.service.storage import Stored
from fn3hw.training import Recipe

PROFILES = Path(__file__).parents[3] / "profiles" / "amd-epyc-x86-64"
RUN, PROFILE, SEARCH, OTHER = "run-1", "profile-1", "search-1", "search-2"
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
METHODS = ("fn3hw", "random", "optuna-tpe", "evolution")


@dataclass(frozen=True)
class Shown:
    """What was made: the id of a job of each kind, and the atlas of the first search."""

    jobs: dict[str, str]
    atlas: Atlas
    profile: ProfileRecord


def fill(parts: Parts, *, points: int = 300, name: str = "digits", profile: str = "mlp-1-thread.json") -> Shown:
    """Make one of everything."""
    record, atlas, texts = made(profile, points)
    stored = {path: put(parts, text) for path, text in texts.items()}
    cost_summary = {
        "verdict": record.verdict,
        "reference_latency_ms": record.reference.latency_ms,
        "holdout": {"mape": 0.021, "within_10pct": 1.0, "spearman": 0.993, "n": 10},
        "noise": {"repeat_mape": record.noise.repeat_mape},
    }
    began = now() - timedelta(days=2)
    with parts.database.session() as session:
        for path, file in stored.items():
            catalog.keep_file(session, file, path)
        session.add(
            Network(
                id="network-1",
                name=record.network.name,
                digest="0" * 64,
                architecture=record.network.digest,
                gates=record.space.to_json(),
                n_blocks=record.space.n_blocks,
                input_shape=list(record.network.input_shape),
                n_classes=10,
                onnx_sha256=stored["evaluators.json"].sha256,
                space_sha256=stored["evaluators.json"].sha256,
                created_at=began,
            )
        )
        session.flush()
        recipe = Recipe.load("digits").settings()
        session.add(Run(id=RUN, name=name, network_id="network-1", recipe=recipe, job_id="train-1", created_at=began))
        for key, device in ((PROFILE, "local"), ("profile-2", "pi5")):
            session.add(
                Profile(
                    id=key,
                    device=device,
                    architecture=record.network.digest,
                    sha256=stored["profile.json"].sha256,
                    verdict=record.verdict if device == "local" else "noisy",
                    quantity="latency",
                    summary=cost_summary,
                    created_at=began + timedelta(hours=1),
                )
            )
        session.flush()
        for key, of, device, path in (
            (SEARCH, PROFILE, "local", "atlas-a.json"),
            (OTHER, "profile-2", "pi5", "atlas-b.json"),
        ):
            session.add(
                Search(
                    id=key,
                    run_id=RUN,
                    profile_id=of,
                    device=device,
                    atlas_name=path,
                    atlas_sha256=stored[path].sha256,
                    evaluators_sha256=stored["evaluators.json"].sha256,
                    summary={"evaluations": points, "seconds": 61.0, "points": len(atlas.points)},
                    created_at=began + timedelta(hours=2 if device == "local" else 1.5),
                )
            )
        _devices(session)
        jobs = _jobs(session, parts, atlas)
    return Shown(jobs, atlas, record)


@cache
def made(profile: str, points: int) -> tuple[ProfileRecord, Atlas, dict[str, str]]:
    """A profile, the atlas of its first search, and the files."""
    record = ProfileRecord.read(PROFILES / profile)
    atlas, other = atlases(record, points)
    return (
        record,
        atlas,
        {
            "profile.json": record.to_text(),
            "atlas-a.json": atlas_text(atlas),
            "atlas-b.json": atlas_text(other),
            "evaluators.json": "{}\n",
        },
    )


def atlases(record: ProfileRecord, points: int) -> tuple[Atlas, Atlas]:
    """The atlas of random subnets under the profile's cost model, and one of a device where all takes longer."""
    cost, rng = fit_cost(record), np.random.default_rng(0)
    space = cost.space
    low, high = (np.array([getattr(gate, name) for gate in space]) for name in ("min_kept", "size"))
    shares = np.clip(rng.beta(1.2, 1.2, (4 * points, 1)) + 0.25 * rng.normal(size=(4 * points, len(low))), 0, 1)
    counts = np.unique(np.round(low + (high - low) * shares).astype(int), axis=0)
    counts = counts[rng.permutation(len(counts))[:points]]
    subnets = [space.from_counts(dict(zip((gate.name for gate in space), row.tolist(), strict=True))) for row in counts]
    removed = 1 - (counts - low) / np.maximum(1, high - low)
    accuracy = 97.5 - 12 * (removed**2.5).mean(1) - 3 * removed.max(1) ** 3 + rng.normal(0, 0.15, len(counts))
    table = cost.predict(subnets)[
        ["latency_ms", "latency_ms_low", "latency_ms_high", "peak_mib", "size_mib"]
    ].to_numpy()
    made = Provenance(device="a", network="0", profile="0", evaluator="0:0")
    found = []
    for factor in (1.0, 2.6):
        rows = (table * [factor, factor, factor, 1, 1]).tolist()
        found.append(
            Atlas(
                [
                    Point(
                        subnet=subnet,
                        latency_ms=row[0],
                        latency_ms_low=row[1],
                        latency_ms_high=row[2],
                        peak_mib=row[3],
                        size_mib=row[4],
                        accuracy=float(a),
                        evaluated_accuracy=float(a) + 0.1,
                    )
                    for subnet, row, a in zip(subnets, rows, accuracy, strict=True)
                ],
                made,
            )
        )
    return found[0], found[1]


def atlas_text(atlas: Atlas) -> str:
    """An atlas as its file holds it."""
    with TemporaryDirectory() as folder:
        return atlas.save(folder).read_text()


def put(parts: Parts, text: str) -> Stored:
    """Store a text."""
    return parts.storage.put(io.BytesIO(text.encode()))


def report() -> Mapping[str, str]:
    """The files of a comparison."""
    rng, methods, curves = np.random.default_rng(1), [], io.StringIO()
    writer = csv.writer(curves, lineterminator="\n")
    writer.writerow(["evaluations", "seconds", "mean", "low", "high", "method"])
    for number, name in enumerate(METHODS):
        end = 91.0 - 0.6 * number
        for n in sorted({int(n) for n in np.geomspace(1, 300, 40)}):
            mean = end - (20 + 4 * number) * np.exp(-n / (15 + 10 * number))
            width = 0.2 + 4 / n
            writer.writerow([n, n * 0.07, mean, mean - width, mean + width, name])
        budgets = {
            f"{x:.6g}": {"mean": m, "ci": [m - 0.5, m + 0.5], "met": 1.0}
            for x in np.geomspace(0.05, 1.1, 10)
            for m in [float(end - 9 * np.exp(-4 * x) + 0.2 * rng.normal())]
        }
        difference = {"mean": -0.6 * number, "ci": [-0.7 * number, -0.5 * number], "p_value": 0.0625}
        methods.append(
            {
                "name": name,
                "evaluations": 300.0,
                "seconds": 21.7,
                "failed": 0,
                "infeasible": number,
                "hypervolume_mean": end,
                "hypervolume_ci": [end - 0.1, end + 0.1],
                "difference_to_the_first": difference,
                "hypervolume_on_unseen_images": {
                    "mean": end - 1.4,
                    "ci": [end - 1.6, end - 1.2],
                    "difference_to_the_first": difference,
                },
                "chosen_accuracy": {"mean": end - 4, "ci": [end - 4.2, end - 3.8]},
                "accuracy_at_budget": budgets,
            }
        )
    settings = {"evaluations": 300, "seeds": 5, "images": 500, "final_images": 2000}
    return {
        "report/report.json": json.dumps({**settings, "methods": methods}),
        "report/curves.csv": curves.getvalue(),
        "report/methods.csv": "method\n",
    }


def _devices(session: Any) -> None:
    local = session.get(Device, "local")
    local.health, local.checked_at, local.verdict = health(), now() - timedelta(minutes=12), "stable"
    session.add(
        Device(
            name="pi5",
            command="ssh pi@pi5.local python3 -",
            worker="lab",
            created_at=now() - timedelta(days=9),
            health={
                **health(),
                "findings": [
                    {"what": "The governor is ondemand.", "fix": "sudo cpupower frequency-set -g performance"}
                ],
            },
            checked_at=now() - timedelta(hours=5),
            verdict="noisy",
        )
    )
    session.add(Device(name="phone", command="adb shell python3 -", worker="desk", created_at=now()))
    session.add(Worker(name="host", process="host:1:a", devices=[], seen_at=now()))
    session.add(Worker(name="lab", process="lab:1:b", devices=["pi5"], seen_at=now() - timedelta(minutes=3)))


def health() -> dict[str, Any]:
    """What a check found."""
    return {
        "name": "local",
        "id": "e3689a61",
        "device": {
            "cpu_model": "AMD EPYC",
            "machine": "x86_64",
            "cores": [0, 1],
            "memory_mib": 16008,
            "os": "Linux 6.1",
            "onnxruntime": "1.23.0",
            "emulated": False,
        },
        "state": {"python": "3.11", "numpy": "2.3", "cpu_count": 2, "free_mib": 9120, "providers": ["CPU"]},
        "probe": {"spread": 0.021, "samples": 40, "conditions": {}},
        "findings": [],
    }


def _jobs(session: Any, parts: Parts, atlas: Atlas) -> dict[str, str]:
    chosen = atlas.lookup(latency_ms=float(np.median([point.latency_ms_high for point in atlas.points])))
    exported = {
        **chosen.to_json(),
        "counts": chosen.counts,
        "measured_latency_ms": 0.97 * chosen.latency_ms,
        "measured_peak_mib": 61.2,
        "test_accuracy": 93.1,
        "budget_met": True,
    }
    budget = {"latency_ms": chosen.latency_ms_high, "search": SEARCH, "verify_on": "local"}
    kinds: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("train", "succeeded", {"recipe": "digits"}, {}),
        ("check", "failed", {"device": "pi5"}, {"device": "pi5", "error": _ERROR, "log": "connecting\n"}),
        (
            "profile",
            "running",
            {"run": RUN, "device": "local", "threads": 1},
            {"device": "local", "progress": _PROGRESS, "log": _LOG},
        ),
        ("search", "queued", {"run": RUN, "profile": PROFILE, "evaluations": 300, "seed": 7}, {}),
        ("export", "succeeded", budget, {"device": "local", "result": exported}),
        ("compare", "succeeded", {"run": RUN, "profile": PROFILE, "evaluations": 300, "seeds": 5}, {}),
        ("export", "cancelled", {**budget, "percentile": 90}, {"device": "local"}),
    ]
    jobs = {}
    for number, (kind, state, parameters, more) in enumerate(kinds):
        started = now() - timedelta(hours=7 - number)
        job = Job(
            id=f"{kind}-{number + 1}",
            kind=kind,
            parameters={"repeat": 0, **parameters},
            state=state,
            queue="devices",
            run_id=None if kind == "check" else RUN,
            attempt=1,
            worker=None if state == "queued" else "host",
            cancel=False,
            created_at=started,
            started_at=None if state == "queued" else started + timedelta(seconds=2),
            finished_at=None if state in ("queued", "running") else started + timedelta(seconds=194),
            **{"log": "", **more},
        )
        session.add(job)
        jobs.setdefault(kind, job.id)
    session.flush()
    model = put(parts, "an ONNX file")
    catalog.add_job_files(session, session.get(Job, jobs["export"]), {"model.onnx": model})
    files = {path: put(parts, text) for path, text in report().items()}
    catalog.add_job_files(session, session.get(Job, jobs["compare"]), files)
    return jobs


_ERROR = {
    "code": "device",
    "message": "pi5 does not answer: ssh ended with status 255, host pi5.local is not known.",
    "hint": "fn3hw device check pi5",
    "exit_status": 4,
}
_PROGRESS = {
    "progress": "measuring",
    "done": 13,
    "total": 30,
    "seconds_left": 214.0,
    "note": "round 2 of 3",
    "at": "2026-01-01T00:00:00+00:00",
}
_LOG = "".join(f"2026-01-01 00:{n:02}:00 subnet {n} of 30: {0.04 + 0.001 * n:.3f} ms\n" for n in range(1, 14))
