"""Units: the nodes of a network whose time is decided by the same gates, and the time of each unit in each subnet.

ONNX Runtime times every kernel of one run, so one measured subnet is a sample for every unit. A node without a width
of its own, such as a sum, may or may not be fused into the node before it: it belongs to that node's unit. So does what
the runtime inserted, such as layout reorders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.ports import Measured
from fn3hw.cost.state import Branch, Encoder
from fn3hw.errors import ProfileError


@dataclass(frozen=True, slots=True)
class Unit:
    """Nodes whose time is decided by the same gates.

    Args:
        widths: gates that decide their shape, in the order of the network: what an operation reads, then what it makes.
        branches: branches that must all be there for the nodes to exist.
        precisions: bit gates that decide which kernels run, its own first.
    """

    widths: tuple[str, ...]
    branches: tuple[Branch, ...]
    precisions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        branches = [f"{gate}[{block}]" for gate, block in self.branches]
        return " × ".join(self.widths) + (f" in {' and '.join(branches)}" if branches else "") or "ungated"


class UnitTable:
    """Which unit each node belongs to.

    Args:
        units: per node, in order, its gates.
        encoder: of the search space.
    """

    def __init__(self, units: Mapping[str, Sequence[str]], encoder: Encoder) -> None:
        self.encoder = encoder
        self.unit_of: dict[str, Unit] = {}
        before: Unit | None = None
        for node, tokens in units.items():
            widths, branches, precisions = encoder.split(tokens)
            in_order = tuple(sorted(widths, key=encoder.column.__getitem__))
            unit = Unit(in_order, tuple(sorted(branches)), precisions)
            if not widths and not precisions and before is not None and before.branches == unit.branches:
                unit = before
            self.unit_of[node] = before = unit
        self.units: tuple[Unit, ...] = tuple(dict.fromkeys(self.unit_of.values()))
        self._index = {unit: k for k, unit in enumerate(self.units)}

    def times(self, measurements: Sequence[Measured]) -> tuple[FloatArray, FloatArray]:
        """Microseconds per measurement and unit, shape (n, U), and how many kernels that was by operator, (n, U, O).

        Raises:
            ProfileError: a kernel belongs to no node of the network.
        """
        ran = [{kernel: _operators(kernel, one) for kernel in one.kernels} for one in measurements]
        index = {name: o for o, name in enumerate(sorted({o for one in ran for some in one.values() for o in some}))}
        times = np.zeros((len(measurements), len(self.units)))
        kernels = np.zeros((*times.shape, len(index)))
        for i, measured in enumerate(measurements):
            for kernel, microseconds in measured.kernels.items():
                k = self._index[self._owner(kernel)]
                times[i, k] += microseconds
                for operator in ran[i][kernel]:
                    kernels[i, k, index[operator]] += 1
        return times, kernels

    def columns(self, unit: Unit) -> list[int]:
        """Columns of the unit's widths in `States.counts`."""
        return [self.encoder.column[name] for name in unit.widths]

    def _owner(self, kernel: str) -> Unit:
        node = kernel.partition("@")[2] if kernel.startswith("~") else kernel
        if node in self.unit_of:
            return self.unit_of[node]
        if not node:
            return self.units[0]
        raise ProfileError(f"The profile has a kernel {kernel!r} that belongs to no node of its network.")


def _operators(kernel: str, measured: Measured) -> Sequence[str]:
    """Operators of the kernels timed under a name; of old profiles only inserted ones are known."""
    inserted, _, _ = kernel.removeprefix("~").partition("@")
    return measured.operators.get(kernel) or (inserted if kernel.startswith("~") else "",)
