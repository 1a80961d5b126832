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
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx

_NCHWC = "_nchwc"
_FUSION = re.compile(r"/\w*Fusion\w*$")
_TOKEN = re.compile(r"_token_\d+$")
_FUSED_FROM = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}


def attribute(kernels: Iterable[Sequence[Any]], model: onnx.ModelProto) -> dict[str, float]:
    """Microseconds per node of ``model``, and per inserted node under ``~OPERATOR@NODE``, NODE executed before it.

    Args:
        kernels: ``(name, operator, provider, microseconds)`` in order of execution, see `usual`.
        model: the file that was profiled.

    Returns:
        All the time of ``kernels``; inserted nodes before the first node of the file are under ``~OPERATOR@``.
    """
    owners = _Owners(model)
    times: dict[str, float] = {}
    previous = ""
    for name, operator, _, microseconds in kernels:
        owner = owners.of(name, operator)
        if owner is not None:
            previous = owner
        key = owner if owner is not None else f"~{operator}@{previous}"
        times[key] = round(times.get(key, 0.0) + microseconds, 3)
    return times


def usual(rounds: Sequence[Iterable[Sequence[Any]]]) -> list[tuple[str, str, str, float]]:
    """One list of kernels from those of several rounds, each with the mean of its faster half of times.

    What disturbs a kernel makes it slower; what keeps a cache filled differs from round to round. A kernel that the
    first round lacks is not in it.
    """
    times: dict[tuple[str, str, str], list[float]] = {}
    for kernels in rounds:
        for name, operator, provider, microseconds in kernels:
            times.setdefault((name, operator, provider), []).append(microseconds)
    return [(*key, float(np.mean(sorted(values)[: (len(values) + 1) // 2]))) for key, values in times.items()]


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
