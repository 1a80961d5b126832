"""File size, which follows from the counts, and peak memory, which is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fn3hw.cost.basis import FloatArray
from fn3hw.cost.solve import fit_relative
from fn3hw.cost.state import Encoder, States
from fn3hw.cost.tables import Piece
from fn3hw.errors import ProfileError

MIB: Final = 1 << 20

_ALPHA = 1e-4
_BETTER = 0.95
"""Memory of activations is charged where it lowers the leave-one-out error to this share."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Initializers that depend on the same gates: ``bytes * product of counts``, where all branches are there.

    Quantized ones take the share ``bits[count - 1] / 32`` of that, by the count in column ``bit_column``.
    """

    bytes: float
    columns: tuple[int, ...]
    branch_columns: tuple[int, ...]
    bit_column: int | None
    bits: tuple[float, ...]

    def of(self, states: States) -> FloatArray:
        """Bytes, shape (n,)."""
        there = states.branches[:, list(self.branch_columns)].all(axis=1)
        share = np.ones(len(states))
        if self.bit_column is not None:
            share = np.array(self.bits)[states.counts[:, self.bit_column].astype(int) - 1] / 32
        return np.asarray(self.bytes * states.counts[:, list(self.columns)].prod(axis=1) * there * share)


class Size:
    """Bytes of a subnet's file: its parameters, exact, and the graph around them, fitted.

    Args:
        parameters: as a profile lists them.
        encoder: of the search space.

    Raises:
        ProfileError: the parameters are not those of the space.
    """

    def __init__(self, parameters: Sequence[Mapping[str, Any]], encoder: Encoder) -> None:
        total: dict[tuple[tuple[int, ...], tuple[int, ...], int | None, tuple[float, ...]], float] = {}
        try:
            for one in parameters:
                columns = tuple(sorted(encoder.column[name] for name in one["gates"]))
                branches = tuple(sorted(encoder.branch_column[gate, int(block)] for gate, block in one["branches"]))
                gate, bits = one.get("precision") or (None, ())
                key = columns, branches, None if gate is None else encoder.column[gate], tuple(float(b) for b in bits)
                total[key] = total.get(key, 0.0) + float(one["fixed_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"The profile's parameters do not fit its search space: {error!r}.") from error
        self.tensors = tuple(Tensor(size, *key) for key, size in total.items())
        self._inside = self._find_inside()
        self._graph = np.zeros(1 + len(encoder.branches))

    def parameter_bytes(self, states: States) -> FloatArray:
        """Bytes of all parameters, shape (n,)."""
        total = np.zeros(len(states))
        for tensor in self.tensors:
            total += tensor.of(states)
        return total

    def present(self, states: States) -> NDArray[np.bool_]:
        """Whether anything that a gate decides is left, shape (n, G): not so of a gate inside a removed branch."""
        found = np.ones(states.counts.shape, dtype=np.bool_)
        for column, options in self._inside.items():
            found[:, column] = np.any([states.branches[:, list(needed)].all(axis=1) for needed in options], axis=0)
        return found

    def deciding(self, column: int) -> set[int]:
        """The branches that `present` depends on for a gate."""
        return {branch for needed in self._inside.get(column, ()) for branch in needed}

    def _find_inside(self) -> dict[int, set[tuple[int, ...]]]:
        """Per gate all of whose tensors are in branches, what its tensors need: any one of them has all of its own."""
        needs: dict[int, set[tuple[int, ...]]] = {}
        for tensor in self.tensors:
            for column in (*tensor.columns, *([] if tensor.bit_column is None else [tensor.bit_column])):
                needs.setdefault(column, set()).add(tensor.branch_columns)
        return {column: options for column, options in needs.items() if () not in options}

    def fit(self, states: States, size_bytes: FloatArray) -> Size:
        """Fit the bytes of the graph: a constant and some per branch; returns itself."""
        graph = size_bytes - self.parameter_bytes(states)
        matrix = self._matrix(states)
        # As few branches as subnets may leave it open which branch takes what: a little ridge shares it out.
        ridge = 1e-6 * len(matrix) * np.eye(matrix.shape[1])
        ridge[0, 0] = 0.0
        self._graph = np.linalg.lstsq(np.concatenate([matrix, ridge]), np.append(graph, np.zeros(len(ridge))))[0]
        return self

    def predict(self, states: States) -> FloatArray:
        """MiB of the file, shape (n,)."""
        size: FloatArray = (self.parameter_bytes(states) + self._matrix(states) @ self._graph) / MIB
        return size

    def pieces(self, encoder: Encoder, peak: float) -> Iterator[Piece]:
        """What the size is the sum of, but for a constant, for sums of latency, peak memory and size in MiB.

        Args:
            encoder: of the search space.
            peak: share of the parameters in peak memory.
        """
        for tensor in self.tensors:
            gates = {*tensor.columns, *(encoder.gate_of(branch) for branch in tensor.branch_columns)}
            bits = [] if tensor.bit_column is None else [tensor.bit_column]
            yield Piece(frozenset({*gates, *bits}), tensor.of, (0.0, peak / MIB, 1 / MIB))
        for branch, coef in enumerate(self._graph[1:]):
            gates = {encoder.gate_of(branch)}
            yield Piece(frozenset(gates), partial(_is_there, branch), (0.0, 0.0, float(coef) / MIB))

    @property
    def constant_mib(self) -> float:
        """What no gate decides."""
        return float(self._graph[0] / MIB)

    @staticmethod
    def _matrix(states: States) -> FloatArray:
        return np.concatenate([np.ones((len(states), 1)), states.branches.astype(np.float64)], axis=1)


class PeakMemory:
    """Peak resident memory: the runtime, a multiple of the parameters, and activations in proportion to widths.

    Args:
        size: knows the bytes of parameters.
        largest: count of each gate in the full network, shape (G,).
    """

    def __init__(self, size: Size, largest: FloatArray) -> None:
        self._size = size
        self._largest = largest
        self._coef: FloatArray | None = None
        self.loo_error = float("nan")

    def fit(self, states: States, peak_mib: FloatArray) -> PeakMemory:
        """Non-negative least squares; without measured memory nothing is fitted. Returns itself."""
        if not (np.isfinite(peak_mib).all() and (peak_mib > 0).all()):
            return self
        matrix = self._matrix(states)
        few, all_terms = (
            fit_relative(matrix[:, :2], peak_mib, alpha=_ALPHA),
            fit_relative(matrix, peak_mib, alpha=_ALPHA),
        )
        best = all_terms if all_terms.error < _BETTER * few.error else few
        self._coef = np.append(best.coef, np.zeros(matrix.shape[1] - len(best.coef)))
        self.loo_error = best.error
        return self

    def predict(self, states: States) -> FloatArray:
        """MiB, shape (n,); NaN where no memory was measured."""
        if self._coef is None:
            return np.full(len(states), np.nan)
        result: FloatArray = self._matrix(states) @ self._coef
        return result

    def pieces(self, encoder: Encoder) -> Iterator[Piece]:
        """What memory and file are the sums of, but for constants, for sums of latency, peak memory and size."""
        coef = self._coef if self._coef is not None else np.zeros(2 + len(self._largest))
        yield from self._size.pieces(encoder, float(coef[1]))
        for column, per_width in enumerate(coef[2:]):
            gates = frozenset({column}) | {encoder.gate_of(branch) for branch in self._size.deciding(column)}
            yield Piece(gates, partial(self._width, column), (0.0, float(per_width), 0.0))

    @property
    def constant_mib(self) -> float:
        """What no gate decides; NaN where no memory was measured."""
        return float("nan") if self._coef is None else float(self._coef[0])

    def _width(self, column: int, states: States) -> FloatArray:
        return np.asarray(states.counts[:, column] / self._largest[column] * self._size.present(states)[:, column])

    def _matrix(self, states: States) -> FloatArray:
        parameters = self._size.parameter_bytes(states)[:, None] / MIB
        widths = states.counts / self._largest * self._size.present(states)
        return np.concatenate([np.ones((len(states), 1)), parameters, widths], axis=1)


def _is_there(branch: int, states: States) -> FloatArray:
    return states.branches[:, branch].astype(np.float64)
