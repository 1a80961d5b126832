"""What is slow to make and never changes: made once, by one request at a time, and kept while it is used."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import TypeVar, cast

MOST = 32
Value = TypeVar("Value")


class Kept:
    """Values in memory under keys: their kind, and all that they depend on. The last ``MOST`` used stay.

    Of a kind, one is made at a time, whoever asks: making may take a core for seconds, which lookups need, too.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[str, ...], object] = OrderedDict()
        self._lock = threading.Lock()
        self._making: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def find(self, key: tuple[str, ...], make: Callable[[], Value]) -> Value:
        """The value of a key, made if it is not there."""
        found = self._known(key)
        if found is None:
            with self.making(key[0]):
                found = self._known(key)
                if found is None:
                    found = make()
                    with self._lock:
                        self._values[key] = found
                        while len(self._values) > MOST:
                            self._values.popitem(last=False)
        return cast(Value, found)

    def making(self, kind: str) -> threading.Lock:
        """Held while a value of a kind is made."""
        with self._lock:
            return self._making[kind]

    def _known(self, key: tuple[str, ...]) -> object | None:
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
            return found
