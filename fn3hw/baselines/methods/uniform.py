"""Uniform width: all gates of a kind at the same place of their ladders, as width multipliers do.

Channels, neurons and paths share a width, layers a depth and bits a precision; a grid of the three as fine as the
evaluations allow (MobileNets, Howard et al., 2017, for width; here every level has its multiplier).
"""

from __future__ import annotations

from itertools import product

import numpy as np

from fn3hw.baselines.methods.port import Proposals, Proposer
from fn3hw.searcher.ports import FloatArray

_KINDS = {"channel": "width", "neuron": "width", "path": "width", "layer": "depth", "bit": "precision"}


class Uniform(Proposer):
    """A grid of common places, one axis per kind of gate."""

    def propose(self) -> Proposals:
        """See `Proposer`."""
        kinds = np.array([_KINDS[gate.level] for gate in self.task.charge.space])
        moving = {kind: self.task.n_rungs[kinds == kind].max() for kind in sorted(set(kinds))}
        axes = dict(zip(moving, self._axes(list(moving.values())), strict=True))
        points = [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]
        places = np.array([[point[kind] for kind in kinds] for point in points])
        yield self.task.at(places[self.rng.permutation(len(places))])

    def _axes(self, sizes: list[int]) -> list[FloatArray]:
        """Places per kind: as many as the evaluations allow, the kinds with few rungs first."""
        left, counts = float(self.task.evaluations), {}
        for position, index in enumerate(np.argsort(sizes)):
            fair = left ** (1 / (len(sizes) - position))
            counts[int(index)] = max(1, min(int(sizes[index]), int(fair)))
            left /= counts[int(index)]
        return [np.linspace(0.0, 1.0, counts[index]) if counts[index] > 1 else np.zeros(1) for index in sorted(counts)]
