"""Where evaluations run. The archive keeps one writer, whatever the executor: results come back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from fn3hw.errors import InputError
from fn3hw.space.subnet import Subnet


class LocalExecutor:
    """Evaluations in this process.

    Args:
        workers: evaluations side by side; ONNX Runtime releases the interpreter lock while it computes.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError(f"An executor needs at least one worker, not {workers}.")
        self.workers = workers

    def map(self, function: Callable[[Subnet], float], subnets: Iterable[Subnet]) -> Iterator[float]:
        """Yield ``function(subnet)`` in the order of ``subnets``."""
        if self.workers == 1:
            yield from map(function, subnets)
            return
        pool = ThreadPoolExecutor(self.workers)
        try:
            yield from pool.map(function, list(subnets))
        finally:
            pool.shutdown(cancel_futures=True)
