"""How many requests are answered: of one token per second, wrong tokens from one address per minute, and how fast.

How fast matters while the machine that the server runs on is measured: other work on it makes measurements noisy, so
requests take turns then.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from fn3hw.service.errors import TooMany

BURST_S = 2.0
FAILURES, FAILURES_S = 20, 60.0
MEASURED_PER_S, SAVED = 100.0, 10
"""Requests a second, and as many at once, while this machine is measured."""
PATIENCE_S = 5.0
LOOK_EVERY_S = 0.5
_MOST = 10_000
Value = TypeVar("Value")


class Limiter:
    """Token buckets in memory, one a token; and counts of failures, one an address.

    Args:
        per_s: requests of a token per second on average, and ``BURST_S`` times as many at once; 0 for any number.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, token_id: str) -> None:
        """Count a request.

        Raises:
            TooMany: it is one too many.
        """
        if not self._per_s:
            return
        now, most = time.monotonic(), self._per_s * BURST_S
        with self._lock:
            left, at = self._buckets.get(token_id, (most, now))
            left = min(most, left + (now - at) * self._per_s)
            if left >= 1:
                _put(self._buckets, token_id, (left - 1, now))
                return
            _put(self._buckets, token_id, (left, now))
        raise TooMany(
            f"This server answers {self._per_s:g} requests a token and second.", after_s=max(1.0, 1 / self._per_s)
        )

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        with self._lock:
            n, since = self._failures.get(address, (0, time.monotonic()))
            if time.monotonic() - since > FAILURES_S:
                n, since = 0, time.monotonic()
            _put(self._failures, address, (n + 1, since))

    def check_failures(self, address: str) -> None:
        """Raise `TooMany` where an address has sent many wrong tokens lately."""
        with self._lock:
            n, since = self._failures.get(address, (0, 0.0))
        left = since + FAILURES_S - time.monotonic()
        if n >= FAILURES and left > 0:
            raise TooMany(f"Too many wrong tokens from {address}.", after_s=left)


class Pace:
    """Requests take turns while this machine is measured: they wait, so that whoever asks as fast as it can is slowed.

    Args:
        measured: whether it is measured now; asked now and then.
    """

    def __init__(self, measured: Callable[[], bool]) -> None:
        self._measured = measured
        self._found, self._looked_at = False, -LOOK_EVERY_S
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until the next request may be answered.

        Raises:
            TooMany: there are so many before it that it would wait for too long.
        """
        now = time.monotonic()
        if not self._is_measured(now):
            return
        turn = max(self._next, now - SAVED / MEASURED_PER_S)
        if turn - now > PATIENCE_S:
            raise TooMany("This machine is measured just now, and the server answers slowly.", after_s=PATIENCE_S)
        self._next = turn + 1 / MEASURED_PER_S
        if turn > now:
            await asyncio.sleep(turn - now)

    def _is_measured(self, now: float) -> bool:
        if now - self._looked_at >= LOOK_EVERY_S:
            self._found, self._looked_at = self._measured(), now
        return self._found


def _put(table: OrderedDict[str, Value], key: str, value: Value) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > _MOST:
        table.popitem(last=False)
