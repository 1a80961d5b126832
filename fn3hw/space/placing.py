"""`nest()`: finds where blocks of a user's torch module can be removed, and places gates there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn

from fn3hw.errors import InputError
from fn3hw.space.branches import Branch, residual_branches
from fn3hw.space.channels import channel_flow
from fn3hw.space.flow import Group, Layout, Slice
from fn3hw.space.gate import LEVELS, Gate, check_level
from fn3hw.space.nested import GATE_PREFIX, GateSite, Nested, Ungated, identifier, quantizer_path
from fn3hw.space.quantizer import Quantizer, Schedule
from fn3hw.space.subnet import SearchSpace
from fn3hw.space.tracing import shape_of, trace, weight_of

STRUCTURAL = tuple(level for level in LEVELS if level != "bit")


@dataclass(frozen=True, kw_only=True)
class Bits:
    """How weights are quantized.

    Args:
        schedule: the levels.
        groups: number of quantizers, each for a run of consecutive layers (paper, sec. 5: 7); None for one per layer.

    Raises:
        InputError: the number of groups is not positive.
    """

    schedule: Schedule = field(default_factory=Schedule)
    groups: int | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups < 1:
            raise InputError(f"Weights cannot be quantized in {self.groups} groups: give at least one.")


def nest(
    module: nn.Module,
    example_input: torch.Tensor,
    levels: Sequence[str] | None = ("channel", "layer"),
    *,
    keep: Mapping[str, float] | None = None,
    beta: bool = False,
    one_layer_gate: bool = False,
    bits: Bits | None = None,
) -> Nested:
    """Find the gates of a torch module by tracing it.

    Channels and neurons are gated where no residual sum ties them down: between two convolutions or linear layers,
    through batch norm, activation, depthwise convolution, pooling, flatten, squeeze-and-excitation. Where a grouped
    convolution lies between them, its groups are the blocks, of level ``path``. A residual branch
    is a block of level ``layer``; the branches that add to one stream form one gate. What cannot be gated is left whole
    and listed with its reason in ``Nested.report``. At level ``bit``, the weights of convolutions and linear layers are
    quantized, and the steps of each quantizer are the blocks of its gate (`fn3hw.space.quantizer`).

    Args:
        module: any module that torch.fx can trace; its parameters are shared, not copied.
        example_input: a batch of inputs (N, ...).
        levels: which kinds of block to gate; None for all that the network has, but for ``bit``.
        keep: per level the share of each gate's blocks that every subnet keeps, in [0, 1]; at least one block of a
            channel, neuron, path or bit gate always stays.
        beta: scale kept blocks by their keep probability in evaluation (paper, sec. 2.2).
        one_layer_gate: all residual branches form one gate, as in the paper's FN3-layer; otherwise the branches of each
            residual stream do.
        bits: how weights are quantized, at level ``bit``; by default the paper's 4 bits, each layer by itself.

    Raises:
        UnknownName: a level that does not exist.
        InputError: a level that the network does not have, or no level at all; weights that cannot be quantized.
        TraceError: the module cannot be traced; the message names the line.
    """
    for level in (*(levels or ()), *(keep or {})):
        check_level(level)
    if levels is not None and not levels:
        raise InputError("No level to nest: give at least one.", hint=f"Levels: {', '.join(LEVELS)}.")
    if beta and "bit" in (levels or ()):
        raise InputError(
            "Weights scaled by β are no integers: level bit cannot be nested with beta=True.", hint="Leave beta out."
        )
    for level, share in (keep or {}).items():
        if not 0.0 <= share <= 1.0:
            raise InputError(f"keep[{level!r}] is {share}: it is a share of the blocks, between 0 and 1.")
    traced = trace(module, example_input)
    flow = channel_flow(traced)
    branches = residual_branches(traced, flow)
    if one_layer_gate:
        branches = [replace(branch, stream=0) for branch in branches]
    builder = _Builder(traced, levels, dict(keep or {}), beta, bits or Bits())
    return builder.build(flow.groups(), branches, example_input)


class _Builder:
    """Places gate sites in a traced graph."""

    def __init__(
        self, module: fx.GraphModule, levels: Sequence[str] | None, keep: dict[str, float], beta: bool, bits: Bits
    ) -> None:
        self.module, self.keep, self.beta, self.bits = module, keep, beta, bits
        self.levels = STRUCTURAL if levels is None else tuple(levels)
        self.required = self.levels if levels is not None else ()
        self.nodes = {node.name: node for node in module.graph.nodes}
        self.modules = dict(module.named_modules())
        self.order = {name: index for index, name in enumerate(self.nodes)}
        self.report: list[Ungated] = []
        self.placed: list[tuple[int, Gate]] = []
        self.cuts: dict[str, list[tuple[str, Slice]]] = {}
        self.quantized: dict[str, str] = {}
        self.carrying: set[str] = set()

    def build(self, groups: Sequence[Group], branches: Sequence[Branch], example: torch.Tensor) -> Nested:
        found = set()
        for group in groups:
            if (
                not group.kinds <= {"input", "whole"}
                and (level := _level_of(group)) in self.levels
                and self._place_group(group, level)
            ):
                found.add(level)
        if "layer" in self.levels and self._place_branches(branches):
            found.add("layer")
        if "bit" in self.levels and self._place_bits():
            found.add("bit")
        if missing := [level for level in self.required if level not in found] or ([] if found else [*self.levels]):
            reasons = "; ".join(sorted({f"{u.name}: {u.reason}" for u in self.report if u.level in missing})[:5])
            raise InputError(
                f"The network has no blocks of level {', '.join(missing)} that can be gated"
                + (f" ({reasons})." if reasons else "."),
                hint=f"Levels found: {', '.join(sorted(found)) or 'none'}.",
            )
        self.module.graph.lint()
        self.module.recompile()
        space = SearchSpace(gate for _, gate in sorted(self.placed, key=lambda pair: pair[0]))
        return Nested(self.module, space, self.cuts, self.report, example, self.quantized, frozenset(self.carrying))

    def _place_group(self, group: Group, level: str) -> bool:
        name = group.producers[0]
        pins = list(group.pins)
        if not pins and not group.sites:
            pins = ["nothing that mixes channels reads it"]
        if not pins and group.width % group.block:
            pins = ["its groups of channels do not fit into one another"]
        if not pins and group.size < 2:
            pins = ["it has a single block"]
        if pins:
            self.report.append(Ungated(name, level, group.size, pins[0]))
            return False
        gate = Gate(name, level, group.size, max(1, math.ceil(self.keep.get(level, 0.0) * group.size)))
        self.placed.append((min(self.order[site.value] for site in group.sites), gate))
        self.carrying.update(group.values)
        for piece in group.cuts():
            self.cuts.setdefault(piece.parameter, []).append((gate.name, piece))
        for site in group.places():
            node = self.nodes[site.value]
            self._insert(gate, range(gate.size), node, self._readers(node, group), site.layout)
        return True

    def _place_branches(self, found: Sequence[Branch]) -> bool:
        streams: dict[int, list[Branch]] = {}
        for branch in found:
            streams.setdefault(branch.stream, []).append(branch)
        for branches in streams.values():
            first, last = branches[0].name, branches[-1].name
            name = f"{first}..{last}" if first != last else first
            if any(gate.name == name for _, gate in self.placed):
                name = f"{name}+"
            gate = Gate(name, "layer", len(branches), math.ceil(self.keep.get("layer", 0.0) * len(branches)))
            self.placed.append((self.order[branches[0].value], gate))
            for m, branch in enumerate(branches):
                self._insert(gate, range(m, m + 1), self.nodes[branch.value], [self.nodes[branch.operation]], None)
        return bool(streams)

    def _place_bits(self) -> bool:
        """One quantizer per layer with weights, or per run of consecutive ones."""
        layers = dict(self._layers())
        names = list(layers)
        count = min(self.bits.groups or len(names), len(names))
        for index in range(count):
            members = names[index * len(names) // count : (index + 1) * len(names) // count]
            label = [member.removesuffix(".weight") for member in members]
            name = f"{label[0]}..{label[-1]}.bits" if len(members) > 1 else f"{label[0]}.bits"
            weights = [self.module.get_parameter(member) for member in members]
            quantizer = Quantizer(self.bits.schedule, weights, name=name.removesuffix(".bits"))
            kept = max(1, math.ceil(self.keep.get("bit", 0.0) * quantizer.schedule.size))
            gate = Gate(name, "bit", quantizer.schedule.size, kept)
            self.module.add_submodule(quantizer_path(name), quantizer)
            self.placed.append((self.order[layers[members[0]].name], gate))
            self.quantized |= dict.fromkeys(members, name)
        return bool(names)

    def _layers(self) -> Iterator[tuple[str, fx.Node]]:
        """The weights of convolutions and linear layers, and the nodes that read them, in order of execution."""
        seen = set()
        for node in self.nodes.values():
            weight = weight_of(node, self.modules)
            if weight is not None and weight not in seen:
                seen.add(weight)
                yield weight, node

    def _readers(self, node: fx.Node, group: Group) -> list[fx.Node]:
        """What mixes the channels of a node: calls of modules by their path, products with a weight by its name."""
        weights = [(user, weight_of(user, self.modules)) for user in node.users]
        return [user for user, weight in weights if weight and weight.removesuffix(".weight") in group.readers]

    def _insert(self, gate: Gate, blocks: range, node: fx.Node, readers: list[fx.Node], layout: Layout | None) -> None:
        graph, shape = self.module.graph, shape_of(node)
        assert shape is not None
        site = GateSite(gate, blocks, layout=layout, ndim=len(shape), beta=self.beta)
        path = f"{GATE_PREFIX}.{identifier(gate.name)}__{identifier(node.name)}"
        self.module.add_submodule(path, site)
        with graph.inserting_after(node):
            gated = graph.call_module(path, (node,))
        for reader in readers:
            reader.replace_input_with(node, gated)


def _level_of(group: Group) -> str:
    if group.block > 1:
        return "path"
    return "neuron" if group.kinds == {"linear"} else "channel"
