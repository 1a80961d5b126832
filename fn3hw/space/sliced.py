"""Running a subnet of a nested torch network at its real size, instead of at full size with zeros.

Where every gate keeps its first blocks, the weights of a subnet are views of the full weights (``W[:out, :in]``): the
forward pass needs no mask, a removed branch is not run at all, and gradients land in the full weights. Result and
gradients equal those of the masked network; a training step costs what the subnet costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from fn3hw.space.flow import Slice
from fn3hw.space.quantizer import Quantizer
from fn3hw.space.subnet import Subnet
from fn3hw.space.tracing import CONVOLUTIONS, NORMS

Cuts = Mapping[str, list[tuple[str, Slice]]]
"""Per parameter or buffer the (gate, slice) pairs that shrink it."""

Quantized = Mapping[str, tuple[str, Quantizer]]
"""Per quantized parameter its bit gate and its quantizer."""

_CONVOLVE = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


@dataclass(frozen=True)
class _Active:
    """A subnet on its way through the graph: counts per gate, kept steps per bit gate, and removed branches."""

    counts: Mapping[str, int]
    steps: Mapping[str, tuple[int, ...]]
    skipped: frozenset[str]


class SlicedForward:
    """Interprets the graph of a nested network for ordered (prefix) subnets.

    Args:
        module: the graph with gate sites in it.
        cuts: which gates shrink which parameters.
        sites: per graph target the gate's name and, for a residual branch, its block.
        quantized: which parameters are quantized.
        carrying: names of the nodes that carry gated channels.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        cuts: Cuts,
        sites: Mapping[str, tuple[str, int | None]],
        quantized: Quantized | None = None,
        carrying: frozenset[str] = frozenset(),
    ) -> None:
        self.module, self.cuts, self.sites, self.quantized = module, cuts, sites, quantized or {}
        self.carrying = carrying
        self.modules = dict(module.named_modules())
        self.nodes = list(module.graph.nodes)
        self.supported = all(self._can_run(node) for node in self.nodes)

    def run(self, subnet: Subnet, x: torch.Tensor) -> torch.Tensor:
        """Output of an ordered subnet for a batch x (N, ...)."""
        bits = dict(subnet.kept)
        skipped = frozenset(
            target for target, (gate, block) in self.sites.items() if block is not None and not bits[gate] >> block & 1
        )
        steps = {gate: subnet.blocks(gate) for gate, _ in self.quantized.values()}
        active = _Active(subnet.counts, steps, skipped)
        values: dict[fx.Node, Any] = {}
        for node in self._live(skipped):
            values[node] = self._call(node, values, active, x)
        output = self.nodes[-1].args[0]
        assert isinstance(output, fx.Node)
        return values[output]  # type: ignore[no-any-return]

    def _live(self, skipped: frozenset[str]) -> list[fx.Node]:
        """The nodes that the output needs when some branches are left out, in order of execution."""
        wanted = set(self.nodes[-1].all_input_nodes)
        live = []
        for node in reversed(self.nodes[:-1]):
            if node in wanted:
                live.append(node)
                wanted.update(self._inputs(node, skipped))
        return live[::-1]

    def _inputs(self, node: fx.Node, skipped: frozenset[str]) -> list[fx.Node]:
        return [source for source in node.all_input_nodes if str(source.target) not in skipped]

    def _call(self, node: fx.Node, values: dict[fx.Node, Any], active: _Active, x: torch.Tensor) -> Any:
        if node.op == "placeholder":
            return x
        if active.skipped and (inputs := self._inputs(node, active.skipped)) != node.all_input_nodes:
            # A copy, as the sum would have been: what reads it may work in place.
            return values[inputs[0]].clone()
        args = fx.map_arg(node.args, values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, values.__getitem__)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            name = str(node.target)
            return self._narrow(name, self._attribute(name), active)
        return self._module(str(node.target), args, kwargs, active)

    def _module(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], active: _Active) -> Any:
        module = self.modules[name]
        if name in self.sites:
            return module.scaled(args[0])
        if not any(f"{name}.{key}" in self.cuts for key in ("weight", "bias", "running_mean")) and (
            f"{name}.weight" not in self.quantized
        ):
            return module(*args, **kwargs)
        weight = self._narrow(f"{name}.weight", module.weight, active)
        bias = self._narrow(f"{name}.bias", module.bias, active)
        if isinstance(module, nn.Linear):
            return F.linear(args[0], weight, bias)
        if isinstance(module, NORMS):
            mean = self._narrow(f"{name}.running_mean", module.running_mean, active)
            variance = self._narrow(f"{name}.running_var", module.running_var, active)
            training = module.training or mean is None
            return F.batch_norm(args[0], mean, variance, weight, bias, training, _share(module), module.eps)
        assert isinstance(module, CONVOLUTIONS)
        groups = 1 if module.groups == 1 else module.groups * len(weight) // len(module.weight)
        convolve: Any = _CONVOLVE[type(module)]
        return convolve(args[0], weight, bias, module.stride, module.padding, module.dilation, groups)

    def _narrow(self, name: str, tensor: Any, active: _Active) -> Any:
        for gate, piece in self.cuts.get(name, ()) if tensor is not None else ():
            axis, length = piece.axis, active.counts[gate] * piece.repeat
            if length * piece.parts == tensor.shape[axis]:
                continue
            if piece.parts == 1:
                tensor = tensor.narrow(axis, 0, length)
            else:
                tensor = tensor.unflatten(axis, (piece.parts, -1)).narrow(axis + 1, 0, length).flatten(axis, axis + 1)
        if name in self.quantized:
            gate, quantizer = self.quantized[name]
            return quantizer(tensor, active.steps[gate])
        return tensor

    def _attribute(self, path: str) -> Any:
        value: Any = self.module
        for part in path.split("."):
            value = getattr(value, part)
        return value

    def _can_run(self, node: fx.Node) -> bool:
        """Whether a node's meaning does not change with the number of channels that it is given."""
        if node.op == "call_method" and node.target in ("view", "reshape"):
            free = all(isinstance(a, fx.Node) or a == -1 for a in node.args[1:]) and -1 in node.args
            return free or not self.carrying.intersection(source.name for source in node.all_input_nodes)
        if node.op != "call_module":
            return True
        module, name = self.modules[str(node.target)], str(node.target)
        own = [f"{name}.{key}" for key, _ in (*module.named_parameters(), *module.named_buffers())]
        cut = any(key in self.cuts or key in self.quantized for key in own)
        if isinstance(module, CONVOLUTIONS):
            return not cut or (type(module) in _CONVOLVE and module.padding_mode == "zeros")
        return not cut or type(module) is nn.Linear or isinstance(module, NORMS)


def _share(module: Any) -> float:
    """What a training batch counts for in the running statistics, as `torch.nn.BatchNorm2d` has it."""
    if module.momentum is not None:
        return float(module.momentum)
    if module.training and module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        return 1.0 / float(module.num_batches_tracked)
    return 0.0
