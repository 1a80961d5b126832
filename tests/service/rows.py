"""A server's rows, made up: a small network, its run, a profile, a search with a synthetic atlas, and jobs."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fn3hw.searcher import Atlas, Point
from fn3hw.searcher.atlas import Provenance
from fn3hw.service import catalog
from fn3hw.service.api.shared import Parts
from fn3hw.service.models import Job, Profile, Search, now
from fn3hw.space.subnet import SearchSpace
from fn3hw.training import Recipe
from fn3hw.training import Run as RunFolder
from tests.networks import zoo_supernet

STATES = ("queued", "running", "succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Ids:
    """What was made."""

    network: str
    run: str
    profile: str
    search: str
    jobs: dict[str, str]
    artifact: str


@cache
def run_tar() -> bytes:
    """A trained run, as ``fn3hw push`` sends it."""
    with TemporaryDirectory() as folder:
        RunFolder.create(Path(folder) / "run", Recipe.load("digits"))
        zoo_supernet().save(Path(folder) / "run")
        return tar_of({path.name: path.read_bytes() for path in (Path(folder) / "run").iterdir() if path.is_file()})


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def fill(parts: Parts, *, points: int = 40, name: str = "zoo") -> Ids:
    """Make one of everything."""
    with tarfile.open(fileobj=io.BytesIO(run_tar())) as packed:
        files = {one.name: parts.storage.put(packed.extractfile(one)) for one in packed}  # type: ignore[arg-type]
    read = catalog.read_run(parts.storage, files)
    space = read.supernet.space
    atlas = parts.storage.put(io.BytesIO(atlas_text(space, points).encode()))
    profile = parts.storage.put(io.BytesIO(b"{}"))
    keys = parts.storage.put(io.BytesIO(b"{}\n"))
    with parts.database.session() as session:
        run = catalog.add_run(session, read, name=name, job_id=None)
        for file in (atlas, profile, keys):
            catalog.keep_file(session, file, "x.json")
        session.add(
            Profile(
                id="profile-1",
                device="local",
                architecture=read.supernet.architecture,
                sha256=profile.sha256,
                verdict="stable",
                quantity="latency",
                summary={},
                created_at=now(),
            )
        )
        session.flush()
        session.add(
            Search(
                id="search-1",
                run_id=run.id,
                profile_id="profile-1",
                device="local",
                atlas_name="atlas-made-up.json",
                atlas_sha256=atlas.sha256,
                evaluators_sha256=keys.sha256,
                summary={"evaluations": points, "seconds": 1.0, "points": points},
                created_at=now(),
            )
        )
        jobs = {}
        for state in STATES:
            job = Job(
                id=f"check-{state}",
                kind="check",
                parameters={"device": "local", "repeat": len(jobs)},
                state=state,
                queue="devices",
                device="local",
                attempt=1,
                cancel=False,
                log="a line\n",
                created_at=now(),
                error={"code": "device", "message": "It is off.", "hint": "Switch it on.", "exit_status": 4}
                if state == "failed"
                else None,
            )
            session.add(job)
            jobs[state] = job.id
    return Ids(
        network=run.network_id, run=run.id, profile="profile-1", search="search-1", jobs=jobs, artifact=atlas.sha256
    )


def atlas_text(space: SearchSpace, n: int) -> str:
    """An atlas of ``n`` random subnets, the more accurate the slower they are, as its file holds it."""
    rng = np.random.default_rng(0)
    subnets = list(dict.fromkeys(space.random(rng) for _ in range(n)))
    points = []
    for subnet in subnets:
        kept = sum(subnet.counts.values()) / space.n_blocks
        latency, accuracy = 1 + 4 * kept, float(50 + 40 * kept + rng.normal())
        points.append(
            Point(
                subnet=subnet,
                latency_ms=latency,
                latency_ms_low=0.98 * latency,
                latency_ms_high=1.02 * latency,
                peak_mib=50 + 10 * kept,
                size_mib=0.1 + kept,
                accuracy=accuracy,
                evaluated_accuracy=accuracy,
            )
        )
    made = Provenance(device="made up", network="0", profile="0", evaluator="0:0")
    with TemporaryDirectory() as folder:
        text = Atlas(points, made).save(folder).read_text()
    assert json.loads(text)["points"]
    return text
