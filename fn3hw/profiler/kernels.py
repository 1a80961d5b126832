"""Whose time is it: kernels as ONNX Runtime runs them, attributed to the nodes of the file they come from.

What ONNX Runtime 1.31 does to names (seen in its profiles; the tests pin it):

- A fused node (batch norm, activation or sum folded into a convolution) keeps the convolution's name.
- A convolution moved to the blocked NCHWc layout is called ``OUTPUT_nchwc``, after the value that the fused node
  produces: the output of the *last* node folded into it.
- A linear layer with its activation is called ``fused NODE``, one made of a product and a sum ``NODE/MatMulAddFusion``.
- An integer kernel made of a node between its quantizing borders is called ``NODE_token_N``.
- Layout reorders, casts and other inserted nodes have names of their own. Their time belongs to the node that was
  executed before them: ``~ReorderOutput@NODE``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import onnx

from fn3hw.profiler import statistics
from fn3hw.profiler.measuring import Round

_NCHWC = "_nchwc"
_FUSION = re.compile(r"/\w*Fusion\w*$")
_TOKEN = re.compile(r"_token_\d+$")
_SHORTEST = 0.1
"""Microseconds that no kernel is shorter than; the runtime's profile has whole ones."""
_FUSED_FROM = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}


Kernel = tuple[str, str, str]
"""Name, operator and provider of a kernel."""


def owners(kernels: Iterable[Kernel], model: onnx.ModelProto) -> list[str]:
    """Per kernel the node of ``model`` that it comes from; of an inserted one ``~OPERATOR@NODE``, NODE run before it.

    Args:
        kernels: in order of execution.
        model: the file that was profiled.

    Returns:
        In the same order; inserted nodes before the first node of the file are ``~OPERATOR@``.
    """
    nodes = _Owners(model)
    found, previous = [], ""
    for name, operator, _ in kernels:
        owner = nodes.of(name, operator)
        if owner is not None:
            previous = owner
        found.append(owner if owner is not None else f"~{operator}@{previous}")
    return found


def quiet_times(rounds: Iterable[Round], quiet_ns: float) -> dict[str, dict[Kernel, float]]:
    """Microseconds of each kernel of each subnet in a quiet moment.

    Kernels of one name do much the same work in all subnets, and get slower alike where the reference does
    (`statistics.at_quiet`). Few rounds tell the sum of a subnet's kernels more surely than each of them: the kernels
    share what the sums of the rounds say (`statistics.quiet_totals`).

    Args:
        rounds: of any subnets; those without kernel times are left out.
        quiet_ns: what the reference takes in a quiet moment.
    """
    timed: dict[str, list[Round]] = {}
    for one in rounds:
        if one.kernels:
            timed.setdefault(one.subnet, []).append(one)
    if not timed:
        return {}
    found: dict[str, dict[Kernel, float]] = {subnet: {} for subnet in timed}
    seen: dict[Kernel, list[tuple[str, float, float]]] = {}
    for subnet, own in timed.items():
        for one in own:
            for name, operator, provider, microseconds in one.kernels:
                row = (subnet, one.kernels_reference_ns or quiet_ns, max(microseconds, _SHORTEST))
                seen.setdefault((name, operator, provider), []).append(row)
    for kernel, rows in seen.items():
        subnets = np.array([subnet for subnet, _, _ in rows])
        names = list(dict.fromkeys(subnets.tolist()))
        groups = [np.flatnonzero(subnets == name) for name in names]
        reference, times = np.array([row[1:] for row in rows]).T
        for name, microseconds in zip(names, statistics.at_quiet(times, reference, groups, quiet_ns), strict=True):
            found[name][kernel] = float(microseconds)
    sums = [
        np.array(
            [(one.kernels_reference_ns or quiet_ns, 1e3 * sum(kernel[3] for kernel in one.kernels)) for one in own]
        )
        for own in timed.values()
    ]
    for (subnet, kernels), total_ns in zip(found.items(), statistics.quiet_totals(sums, quiet_ns), strict=True):
        share = total_ns / 1e3 / sum(kernels.values())
        found[subnet] = {kernel: share * microseconds for kernel, microseconds in kernels.items()}
    return found


class _Owners:
    """Finds the node of the file that a kernel comes from."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._by_name = {node.name: node for node in model.graph.node}
        self._producer = {output: node for node in model.graph.node for output in node.output}
        self._order = {node.name: i for i, node in enumerate(model.graph.node)}
        self._taken: set[str] = set()

    def of(self, name: str, operator: str) -> str | None:
        """Name of the node, or None where the runtime inserted the kernel."""
        for plain in (name, name.removeprefix("fused "), _FUSION.sub("", name), _TOKEN.sub("", name)):
            if plain in self._by_name:
                self._taken.add(plain)
                return plain
        if not name.endswith(_NCHWC) or name.removesuffix(_NCHWC) not in self._producer:
            return None
        last = self._producer[name.removesuffix(_NCHWC)]
        owner = self._start_of_fusion(last, _FUSED_FROM.get(operator, operator))
        self._taken.add(owner)
        return owner

    def _start_of_fusion(self, last: onnx.NodeProto, operator: str) -> str:
        """The nearest node of type ``operator`` at or above ``last``: what the others were folded into.

        Of two that are equally near, as where two convolutions meet in a sum, the later one that is not taken yet: the
        sum is folded into the convolution that runs last.
        """
        level, seen = [last], set[str]()
        while level:
            found = [node for node in level if node.op_type == operator]
            if found:
                return max(found, key=lambda node: (node.name not in self._taken, self._order[node.name])).name
            seen.update(node.name for node in level)
            above = [self._producer[value] for node in level for value in node.input if value in self._producer]
            level = [node for node in above if node.name not in seen]
        return last.name
