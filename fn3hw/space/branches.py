"""Residual branches of a traced graph (paper, fig. 1 A)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from fn3hw.space.attention import ATTENTION_PREFIX
from fn3hw.space.flow import ChannelFlow
from fn3hw.space.tracing import SUM_METHODS, SUMS, shape_of, weight_of


@dataclass(frozen=True)
class Branch:
    """A residual branch: ``value`` is what it adds to a stream, at ``operation``; ``stream`` identifies the stream."""

    value: str
    operation: str
    name: str
    stream: int


def residual_branches(graph_module: fx.GraphModule, flow: ChannelFlow) -> list[Branch]:
    """The branches that a sum adds to a stream and that nothing else reads (paper, fig. 1 A)."""
    modules = dict(graph_module.named_modules())
    ancestors: dict[fx.Node, frozenset[fx.Node]] = {}
    branches = []
    for node in graph_module.graph.nodes:
        above = node.all_input_nodes
        ancestors[node] = frozenset(above).union(*(ancestors[a] for a in above))
        is_sum = node.target in SUMS or (node.op == "call_method" and node.target in SUM_METHODS)
        if not is_sum or len(above) != 2 or shape_of(above[0]) != shape_of(above[1]) or shape_of(node) is None:
            continue
        span = flow.span(node.name)
        candidates = [
            (inside, end)
            for skip, end in (above, above[::-1])
            if (inside := _closed_branch(skip, end, ancestors)) and any(weight_of(n, modules) for n in inside)
        ]
        if span is None or not candidates:
            continue
        inside, end = max(candidates, key=lambda pair: len(pair[0]))
        branches.append(Branch(end.name, node.name, _branch_name(inside), id(span[0])))
    return branches


def _closed_branch(skip: fx.Node, end: fx.Node, ancestors: dict[fx.Node, frozenset[fx.Node]]) -> frozenset[fx.Node]:
    """The nodes that lead to ``end`` and not to ``skip``, or nothing where another reader needs one of them."""
    inside = (ancestors[end] | {end}) - ancestors[skip] - {skip}
    leaks = any(user not in inside for node in inside if node is not end for user in node.users)
    return frozenset() if leaks or len(end.users) != 1 else inside


def _branch_name(inside: frozenset[fx.Node]) -> str:
    """The innermost module that holds all of a branch."""
    named = [str(node.target) for node in inside if node.op in ("call_module", "get_attr")]
    paths = [name.split(".") for name in named if not name.startswith(ATTENTION_PREFIX)]
    common = [parts[0] for parts in zip(*paths, strict=False) if len(set(parts)) == 1]
    return ".".join(common) or str(paths[0][0])
