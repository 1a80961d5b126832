"""Where evaluations run. The archive keeps one writer, whatever the executor: results come back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fn3hw.deploy.runtime import available_cores
from fn3hw.errors import InputError, UnknownName
from fn3hw.searcher.ports import Executor, Item, Result

EXECUTORS = ("local", "ray")


class LocalExecutor:
    """Evaluations in this process.

    Args:
        workers: evaluations side by side; ONNX Runtime releases the interpreter lock while it computes.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError(f"An executor needs at least one worker, not {workers}.")
        self.workers = workers

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``."""
        if self.workers == 1:
            yield from map(function, items)
            return
        pool = ThreadPoolExecutor(self.workers)
        try:
            yield from pool.map(function, list(items))
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def open_executor(name: str = "local", address: str | None = None, *, workers: int | None = None) -> Iterator[Executor]:
    """An executor for as long as it is needed.

    Args:
        name: ``"local"`` or ``"ray"``.
        address: of a Ray cluster; by default one of this machine alone is started.
        workers: evaluations side by side in this process; one per core by default.

    Raises:
        UnknownName: there is no executor of that name.
        InputError: Ray is not installed, there is no cluster at the address, or an address is given that is not used.
    """
    if name not in EXECUTORS:
        raise UnknownName("executor", name, EXECUTORS)
    if name == "local":
        if address is not None:
            raise InputError("Only a cluster has an address.", hint="Add --executor ray")
        yield LocalExecutor(workers or available_cores())
        return
    from fn3hw.searcher.cluster import RayExecutor

    with RayExecutor(address) as cluster:
        yield cluster
