"""Evaluations on a Ray cluster: they fan out to its nodes, while the archive stays here with its one writer.

What is to be run, the evaluator with its images, is stored in the cluster once; each process of a worker keeps it. An
evaluation on a node that is lost is run again on another, so that a lost node costs time and no answer.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from fn3hw.errors import InputError, RunError
from fn3hw.searcher.ports import Item, Result

_RETRIES = 100
"""Times that an evaluation is run again whose worker died. An evaluation that fails is not."""
_REACHED_S = 5.0
_kept: dict[str, Callable[[Any], Any]] = {}
"""What this process of a worker runs, by the id of the stored object."""


class RayExecutor:
    """Evaluations on the nodes of a Ray cluster, one per core of it.

    Args:
        address: of the cluster, ``HOST:PORT`` of its head or ``ray://HOST:PORT``; by default a cluster of this machine
            alone is started, and ended with `close`.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
        try:
            import ray
        except ModuleNotFoundError as error:
            raise InputError("Evaluations on a cluster need ray, which is not installed.", hint=_INSTALL) from error
        self._ray: Any = ray
        if address is not None:
            _check_reachable(address)
        own: dict[str, Any] = {"include_dashboard": False} if address is None else {}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise _no_cluster(address, error) from error
        self._run: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)
        self._stored: tuple[Callable[[Any], Any], Any] | None = None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``.

        Raises:
            RunError: the cluster is lost.
        """
        if self._stored is None or self._stored[0] != function:
            self._stored = function, self._ray.put(function)
        stored = self._stored[1]
        running = [self._run.remote(stored.hex(), [stored], item) for item in items]
        try:
            for one in running:
                yield self._ray.get(one)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise RunError(
                f"The Ray cluster is lost: {_first_line(error)}",
                hint="Start it, and run the same command again: what was evaluated is kept.",
            ) from error

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_INSTALL = "pip install 'fn3hw[ray]'"


def _run(name: str, stored: list[Any], item: Any) -> Any:
    """On a worker: fetch the function unless this process has it, and call it."""
    if name not in _kept:
        import ray

        _kept.clear()
        _kept[name] = ray.get(stored[0])
    return _kept[name](item)


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: BaseException) -> InputError:
    return InputError(
        f"There is no Ray cluster at {address}: {_first_line(error)}",
        hint="Start one on its head node: ray start --head; give the address that this prints.",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
