"""Costs of very many subnets, looked up: a piece of a cost depends on few gates, so all that it can be fits a table.

A search moves gates along ladders of a few counts each and asks for the costs of some hundred thousand states. A part
of latency, the bytes of a tensor, or the memory that a width takes depend on the gates around one layer: over the rungs
of these there are some hundred values. Pieces of the same gates are added up in one table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.state import Encoder, States

MOST = 2**21
"""Entries of all tables together, at most."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """A term of several sums.

    Args:
        gates: numbers of the gates that it depends on.
        value: for n subnets, shape (n,).
        shares: how often each of the k sums holds it.
    """

    gates: frozenset[int]
    value: Callable[[States], FloatArray]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """Sums of pieces for all states on ladders.

    Args:
        strides: what a rung of each gate adds to the index into each table, shape (G, T).
        offsets: where each table begins, shape (T,).
        entries: of all tables, shape (E, k).
    """

    strides: IntArray
    offsets: IntArray
    entries: FloatArray

    @classmethod
    def of(cls, pieces: Sequence[Piece], encoder: Encoder, ladders: Sequence[IntArray]) -> Tables | None:
        """Fill the tables; None where they would be too large.

        Args:
            pieces: whose sums are wanted.
            encoder: of the search space.
            ladders: counts of each gate, G arrays.
        """
        lengths = np.array([len(ladder) for ladder in ladders])
        moving = frozenset(np.flatnonzero(lengths > 1).tolist())
        gates = _largest({piece.gates & moving for piece in pieces})
        sizes = [math.prod(lengths[sorted(one)].tolist()) for one in gates]
        if sum(sizes) > MOST:
            return None
        first = np.array([ladder[0] for ladder in ladders], dtype=np.int64)
        strides = np.zeros((len(ladders), len(gates)), dtype=np.int64)
        own: list[list[Piece]] = [[] for _ in gates]
        for piece in pieces:
            own[next(number for number, one in enumerate(gates) if piece.gates & moving <= one)].append(piece)
        tables = []
        for number, columns in enumerate(sorted(one) for one in gates):
            rows = np.repeat(first[None], sizes[number], axis=0)
            rows[:, columns] = np.array(list(product(*(ladders[g] for g in columns)))).reshape(
                sizes[number], len(columns)
            )
            states = encoder.ordered(rows)
            tables.append(sum(np.outer(piece.value(states), piece.shares) for piece in own[number]))
            strides[columns, number] = np.cumprod([1, *lengths[columns][:0:-1]])[::-1]
        return cls(strides, np.cumsum([0, *sizes[:-1]]), np.concatenate(tables))

    def sums(self, rungs: IntArray) -> FloatArray:
        """The sums for (n, G) numbers of rungs: shape (n, k)."""
        total: FloatArray = self.entries[rungs @ self.strides + self.offsets].sum(axis=1)
        return total


def _largest(sets: set[frozenset[int]]) -> list[frozenset[int]]:
    """Those that are no part of another one."""
    return sorted((one for one in sets if not any(one < other for other in sets)), key=sorted)
