"""A search on a cluster of two Ray nodes finds what one worker finds, even when one node dies in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fn3hw.errors import InputError, UnknownName
from fn3hw.searcher import Heuristic, LocalExecutor, Provenance, open_executor, run_search
from fn3hw.searcher.api import ARCHIVE
from fn3hw.searcher.cluster import RayExecutor

from .synthetic import SyntheticCost, SyntheticImages, archived, make_space

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

SPACE = make_space(4)
MADE_FROM = Provenance(device="bench", network="synthetic", profile="p", evaluator="synthetic:1")


class Slow(SyntheticImages):
    """Takes its time, so that a node can die meanwhile."""

    def right(self, *part: Any) -> Any:
        time.sleep(0.02)
        return super().right(*part)


def failing(_: int) -> int:
    raise InputError("This cannot be evaluated.", hint="Try another.")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    # Functions are sent by the name of their module, which the nodes have to find, too.
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    yield found
    found.shutdown()


def search(folder: Path, evaluator: SyntheticImages, executor: Any) -> list[str]:
    run_search(
        SPACE,
        SyntheticCost(SPACE),
        evaluator,
        MADE_FROM,
        folder=folder,
        settings=Heuristic(evaluations=60, seed=3),
        executor=executor,
    )
    return archived(folder)


def test_two_nodes_find_what_one_worker_finds_though_one_of_them_dies(tmp_path: Path, cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    expected = search(tmp_path / "local", SyntheticImages(SPACE), LocalExecutor())
    killed = []

    def kill() -> None:
        archive = tmp_path / "cluster" / ARCHIVE
        while not (archive.exists() and archive.read_text().count("\n") >= 15):
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)
        killed.append(archive.read_text().count("\n"))

    killer = threading.Thread(target=kill)
    killer.start()
    with open_executor("ray", cluster.address) as executor:
        found = search(tmp_path / "cluster", Slow(SPACE), executor)
    killer.join()
    assert 15 <= killed[0] < 60
    assert found == expected


def test_an_error_of_an_evaluation_is_the_error_of_the_search(cluster: Cluster) -> None:
    with RayExecutor(cluster.address) as executor, pytest.raises(InputError, match="cannot be evaluated") as found:
        list(executor.map(failing, [1]))
    assert found.value.hint == "Try another."


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "127.0.0.1:99999999", ""])
def test_where_there_is_no_cluster_the_message_says_how_to_start_one(address: str) -> None:
    with pytest.raises(InputError, match="no Ray cluster") as found:
        RayExecutor(address)
    assert "ray start" in (found.value.hint or "")


def test_unknown_executors_and_addresses_of_none_are_refused() -> None:
    with pytest.raises(UnknownName, match="local"), open_executor("slurm"):
        pass
    with pytest.raises(InputError, match="address"), open_executor("local", "here:1"):
        pass
