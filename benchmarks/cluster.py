"""The same search with one worker here and on two Ray nodes, of which one is killed in the middle.

Usage: python benchmarks/cluster.py RUN PROFILE [EVALUATIONS]; archives are kept in RUN/cluster
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from ray.cluster_utils import Cluster
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.profiler import Profile
from fn3hw.searcher import Archive, Executor, Heuristic, LocalExecutor, open_executor, provenance_of, run_search
from fn3hw.searcher.api import ARCHIVE
from fn3hw.searcher.searching import evaluator_of

IMAGES = 1000
KILLED_AT = 0.3
"""Share of the evaluations after which a node is killed."""


def main() -> None:
    opened, profile = OpenRun(Path(sys.argv[1]), Console(as_json=False)), Profile.read(sys.argv[2])
    evaluations = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    settings = Heuristic(evaluations=evaluations)
    folder = opened.folder / "cluster"
    shutil.rmtree(folder, ignore_errors=True)
    supernet, cost = opened.supernet.with_blockwise(profile.blockwise), fit_cost(profile)
    evaluator = evaluator_of(supernet, opened.moments, opened.data, "search", IMAGES, integers=False, threads=1)
    made_from = provenance_of(supernet, cost, profile, evaluator.key)

    def searched(path: Path, executor: Executor) -> float:
        started = time.perf_counter()
        run_search(supernet.space, cost, evaluator, made_from, folder=path, settings=settings, executor=executor)
        return time.perf_counter() - started

    local_s = searched(folder / "local", LocalExecutor())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    killed: list[int] = []

    def kill() -> None:
        archive = folder / "cluster" / ARCHIVE
        while not archive.exists() or len(archive.read_text().splitlines()) < KILLED_AT * evaluations:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        killed.append(len(archive.read_text().splitlines()))

    killer = threading.Thread(target=kill)
    killer.start()
    with open_executor("ray", cluster.address) as executor:
        cluster_s = searched(folder / "cluster", executor)
    killer.join()
    cluster.shutdown()
    a, b = (lines(folder / name) for name in ("local", "cluster"))
    archives = [Archive(folder / name / ARCHIVE, supernet.space, evaluator.key) for name in ("local", "cluster")]
    report(
        "cluster",
        {
            "settings": asdict(settings),
            "evaluations": len(a),
            "killed_after": killed[0],
            "archives_are_the_same": a == b,
            "evaluations_on_all_images": [len(archive) for archive in archives],
            "seconds": {"one worker here": local_s, "two nodes, one killed": cluster_s},
        },
    )


def lines(folder: Path) -> list[str]:
    """What an archive says, but for the seconds."""
    return [line.split('"seconds"')[0] for line in (folder / ARCHIVE).read_text().splitlines()]


if __name__ == "__main__":
    main()
