"""What sets a subnet apart from the full network, as numbers that a fit takes.

Removed shares of gates, present branches and settings of quantizers, each with the place in the graph from which on it
can matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fn3hw.deploy.supernet import Supernet, split_branch


@dataclass(frozen=True)
class Feature:
    """What the statistics of a subnet are fitted on.

    A branch that is present, how much of a gate is removed, or which setting of a quantizer is in use.

    Args:
        gate: the gate.
        block: the branch, for a layer gate.
        inside: the branch that a gate lies in; where that is removed, the gate has no influence.
        first: position of the first node that the gate changes.
        steps: number of blocks, for a bit gate.
    """

    gate: str
    block: int | None
    inside: tuple[str, int] | None
    first: int
    steps: int | None = None

    def values(self, masks: Mapping[str, NDArray[np.bool_]]) -> list[float]:
        """Its columns: the presence, the removed share and its square, or one per setting but the largest."""
        if self.steps is not None:
            return [float(masks[self.gate].sum() == count) for count in range(1, self.steps)]
        if self.block is not None:
            return [float(masks[self.gate][self.block])]
        present = self.inside is None or masks[self.inside[0]][self.inside[1]]
        removed = float(1.0 - masks[self.gate].mean()) if present else 0.0
        return [removed, removed * removed]


def features_of(supernet: Supernet) -> list[Feature]:
    """What the fit is on, in the order of its columns."""
    graph = supernet.graph
    units = graph.units()
    found = []
    for gate in supernet.space:
        if gate.level == "bit":
            own = {name for name, one in supernet.quantizers.items() if one.gate == gate.name}
            first = min(i for i, node in enumerate(graph.nodes) if own.intersection(node.input))
            found.append(Feature(gate.name, None, None, first, gate.size))
            continue
        positions = {g.block: i for i, g in graph.gate_nodes.items() if g.gate == gate.name}
        if gate.level == "layer":
            found += [Feature(gate.name, m, None, positions[m]) for m in range(gate.size)]
            continue
        maker = graph.groups[gate.name].producers[0]
        branch = next((split_branch(tag) for tag in units[maker] if "[" in tag), None)
        first = min(i for i, g in graph.gate_nodes.items() if g.gate == gate.name)
        found.append(Feature(gate.name, None, branch, first))
    return found


def columns(features: list[Feature], masks: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.float64]:
    """The columns of a subnet, given by its masks."""
    return np.array([value for feature in features for value in feature.values(masks)])
