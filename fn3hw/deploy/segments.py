"""A file as a chain of files, so that what several subnets have in common at their start is computed once.

A network can be cut at a value where nothing else is still to be used: all later nodes see it alone. Two subnets whose
segments are equal up to there have equal values there. Chains are cut at values chosen once for a network, never at
what happens to be known already: how a subnet is computed, to the last bit, does not depend on what was before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper, shape_inference

_WORK = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a chain.

    Args:
        digest: of this file and of all before it: two chains with equal digests compute equal values.
        model: the ONNX file, with one input and one output.
    """

    digest: str
    model: bytes


def cuts(model: onnx.ModelProto) -> dict[str, int]:
    """Values that a model may be cut at, each with the index of the node after which it is all that is still used."""
    arrays = {tensor.name for tensor in model.graph.initializer}
    to_come: dict[str, int] = {}
    for node in model.graph.node:
        for name in {*node.input} - arrays - {""}:
            to_come[name] = to_come.get(name, 0) + 1
    outputs = {value.name for value in model.graph.output}
    live, found = {value.name for value in model.graph.input} - arrays, dict[str, int]()
    for index, node in enumerate(model.graph.node):
        for name in {*node.input} - arrays - {""}:
            to_come[name] -= 1
        live |= set(node.output)
        live = {name for name in live if to_come.get(name) or name in outputs}
        if len(live) == 1 and not live & outputs:
            found.setdefault(next(iter(live)), index)
    return found


def even_cuts(model: onnx.ModelProto, count: int) -> dict[str, onnx.ValueInfoProto]:
    """At most ``count`` values, between which lie about equally many convolutions and linear layers.

    Args:
        model: the whole network.
        count: of values; a chain has one segment more.

    Returns:
        By name its type, with a rank but no sizes besides those of its spatial axes: subnets differ in the others.
    """
    typed = {value.name: value for value in shape_inference.infer_shapes(model).graph.value_info}
    at = {name: index for name, index in cuts(model).items() if _is_known(typed.get(name))}
    before = [sum(node.op_type in _WORK for node in model.graph.node[: index + 1]) for index in at.values()]
    total = sum(node.op_type in _WORK for node in model.graph.node)
    wanted = [total * part / (count + 1) for part in range(1, count + 1)]
    nearest = {min(range(len(before)), key=lambda i: abs(before[i] - want)) for want in wanted} if at else set()
    names = list(at)
    return {names[i]: _without_widths(typed[names[i]]) for i in sorted(nearest)}


def segments(model: onnx.ModelProto, at: Mapping[str, onnx.ValueInfoProto]) -> list[Segment]:
    """A model as a chain, cut at those of some values that it has and can be cut at."""
    possible = cuts(model)
    places = sorted((possible[name], name) for name in at if name in possible)
    starts = [0, *(index + 1 for index, _ in places)]
    ends = [*starts[1:], len(model.graph.node)]
    values = [*model.graph.input, *(at[name] for _, name in places), *model.graph.output]
    found, digest = [], ""
    for first, last, into, out in zip(starts, ends, values[:-1], values[1:], strict=True):
        part = _part(model, model.graph.node[first:last], into, out).SerializeToString(deterministic=True)
        digest = hashlib.sha256(digest.encode() + part).hexdigest()
        found.append(Segment(digest, part))
    return found


def _part(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], into: onnx.ValueInfoProto, out: onnx.ValueInfoProto
) -> onnx.ModelProto:
    part = onnx.ModelProto(ir_version=model.ir_version, producer_name="fn3hw", opset_import=model.opset_import)
    used = {name for node in nodes for name in node.input}
    part.graph.name = model.graph.name
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)
    part.graph.input.append(into)
    part.graph.output.append(out)
    return part


def _is_known(value: onnx.ValueInfoProto | None) -> bool:
    return value is not None and value.type.tensor_type.HasField("shape")


def _without_widths(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    kind = value.type.tensor_type
    sizes = [axis.dim_value or None if position > 1 else None for position, axis in enumerate(kind.shape.dim)]
    return helper.make_tensor_value_info(value.name, kind.elem_type, sizes)
