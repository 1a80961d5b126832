"""What was computed and may be asked for again, within bounds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Kept(Generic[_Key, _Value]):
    """Keeps what was used last, up to so many entries and bytes, and always the last one; from several threads.

    Sent to another process, it is empty there.

    Args:
        entries: how many, at most.
        size: bytes of them together, at most.
    """

    def __init__(self, entries: int, size: int) -> None:
        self._most, self._most_bytes, self._bytes = entries, size, 0
        self._entries: OrderedDict[_Key, tuple[_Value, int]] = OrderedDict()
        self._under_way: dict[_Key, Future[_Value]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, (self._most, self._most_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: _Key) -> _Value | None:
        """What is kept under a key."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def get(self, key: _Key, make: Callable[[], tuple[_Value, int]]) -> _Value:
        """What is kept under a key, or what ``make`` gives with its size; threads that ask meanwhile wait for it."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
            waiting = self._under_way.get(key)
            if waiting is None:
                own = self._under_way[key] = Future[_Value]()
        if waiting is not None:
            return waiting.result()
        try:
            value, size = make()
            self.add(key, value, size)
            own.set_result(value)
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._under_way[key]
        return value

    def add(self, key: _Key, value: _Value, size: int) -> None:
        """Keep a value; what was not used for longest gives way."""
        with self._lock:
            self._bytes += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = value, size
            while len(self._entries) > max(1, self._most) or (
                self._bytes > self._most_bytes and len(self._entries) > 1
            ):
                self._bytes -= self._entries.popitem(last=False)[1][1]
