"""Subnets as arrays: counts per gate, and which branches of the layer gates are there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import FloatArray
from fn3hw.errors import InputError
from fn3hw.space.subnet import SearchSpace, Subnet

Branch = tuple[str, int]
"""A layer gate and the index of one of its blocks."""

_BRANCH = re.compile(r"(?P<gate>.+)\[(?P<block>\d+)\]")


@dataclass(frozen=True, slots=True)
class States:
    """Subnets of a space.

    Args:
        counts: kept blocks per gate, shape (n, G), in the order of the space.
        branches: per branch that may be removed, whether it is there, shape (n, B).
    """

    counts: FloatArray
    branches: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: NDArray[np.intp]) -> States:
        """Some of them."""
        return States(self.counts[rows], self.branches[rows])


class Encoder:
    """Turns subnets into `States`.

    Args:
        space: the search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.names: tuple[str, ...] = tuple(gate.name for gate in space)
        self.column = {name: j for j, name in enumerate(self.names)}
        self.branches: tuple[Branch, ...] = tuple(
            (g.name, m) for g in space if g.level == "layer" for m in range(g.size)
        )
        self.branch_column = {branch: j for j, branch in enumerate(self.branches)}
        self._bits = [(self.column[name], block) for name, block in self.branches]
        self._sizes = [gate.size for gate in space]

    def encode(self, subnets: Iterable[Subnet]) -> States:
        """The subnets as arrays.

        Raises:
            InputError: a subnet is of another space.
        """
        subnets = list(subnets)
        counts = np.empty((len(subnets), len(self.names)))
        branches = np.empty((len(subnets), len(self.branches)), dtype=bool)
        for i, subnet in enumerate(subnets):
            names, bits = zip(*subnet.kept, strict=True) if subnet.kept else ((), ())
            if names != self.names or any(b >> size for b, size in zip(bits, self._sizes, strict=True)):
                raise InputError(
                    f"Subnet {subnet.id} is of another search space than the profile that the cost model was fitted on."
                )
            counts[i] = [b.bit_count() for b in bits]
            branches[i] = [bits[j] >> block & 1 for j, block in self._bits]
        return States(counts, branches)

    def ordered(self, counts: NDArray[np.int64]) -> States:
        """Subnets that keep the first blocks of each gate, by their counts of shape (n, G)."""
        columns, blocks = np.array(self._bits, dtype=np.int64).reshape(-1, 2).T
        return States(counts.astype(np.float64), counts[:, columns] > blocks)

    def gate_of(self, branch: int) -> int:
        """Number of the layer gate that a column of `States.branches` belongs to."""
        return self.column[self.branches[branch][0]]

    def parse(self, ids: Sequence[str]) -> States:
        """Subnets by their ids."""
        return self.encode(self.space.parse(one) for one in ids)

    def split(self, tokens: Iterable[str]) -> tuple[tuple[str, ...], tuple[Branch, ...], tuple[str, ...]]:
        """Gates of a node as the widths that shape it, the branches that it belongs to, and its bit gates.

        Raises:
            InputError: a gate is not of this space.
        """
        widths: list[str] = []
        branches: list[Branch] = []
        precisions: list[str] = []
        for token in tokens:
            match = _BRANCH.fullmatch(token)
            branch = (match["gate"], int(match["block"])) if match else None
            if token in self.column:
                (precisions if self.space[token].level == "bit" else widths).append(token)
            elif branch is not None and branch in self.branch_column:
                branches.append(branch)
            else:
                raise InputError(f"The profile's network has no gate {token!r}.")
        return tuple(widths), tuple(branches), tuple(dict.fromkeys(precisions))
