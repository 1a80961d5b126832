"""The torch front end: what each operation of a traced graph does to channels, in the terms of `fn3hw.space.flow`.

Operations are looked up by module class or function in the tables below.
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from fn3hw.space.attention import HeadAttention
from fn3hw.space.flow import ChannelFlow, Operand, Slice
from fn3hw.space.tracing import CONVOLUTIONS, NORMS, SUM_METHODS, SUMS, shape_of

POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Tanh, nn.Mish),
    *(nn.LeakyReLU, nn.ELU, nn.SELU, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    nn.AlphaDropout,
)
POOLING_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.ZeroPad2d),
)
POINTWISE_FUNCTIONS: frozenset[Any] = frozenset(
    {
        *(
            F.relu,
            F.relu6,
            F.hardtanh,
            F.silu,
            F.gelu,
            F.sigmoid,
            F.hardsigmoid,
            F.hardswish,
            F.tanh,
            F.leaky_relu,
            F.elu,
        ),
        *(F.dropout, F.mish),
        *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.mul, operator.mul, operator.imul, torch.neg),
        *(operator.neg, torch.div, operator.truediv, torch.sub, operator.sub, F.softplus, F.selu),
    }
)
POOLING_FUNCTIONS: frozenset[Any] = frozenset(
    {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate}
)
POINTWISE_METHODS = frozenset(
    {"relu", "relu_", "sigmoid", "tanh", "clamp", "mul", "mul_", "contiguous", "clone", "float"}
)


def channel_flow(graph_module: fx.GraphModule) -> ChannelFlow:
    """Which channels of a traced module belong together."""
    return _Walk(graph_module).run()


class _Walk:
    """Translates each node of a torch.fx graph into the terms of `ChannelFlow`."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self.modules = dict(graph_module.named_modules())
        nodes = graph_module.graph.nodes
        self.calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
        self.reads = Counter(str(node.target) for node in nodes if node.op == "get_attr")
        self.flow = ChannelFlow()

    def run(self) -> ChannelFlow:
        for node in self.graph_module.graph.nodes:
            inputs = [argument for argument in node.all_input_nodes if shape_of(argument) is not None]
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "output":
                self._pin(inputs, "it is the network's output")
            elif node.op == "call_module":
                self._module(node, inputs)
            elif node.op in ("call_function", "call_method") and shape_of(node) is not None:
                self._function(node, inputs)
        return self.flow

    def _placeholder(self, node: fx.Node) -> None:
        shape = shape_of(node)
        if shape is not None and len(shape) > 1:
            self.flow.make(node.name, shape[1], operation=node.name, kind="input")
            self.flow.pin(node.name, "it is the network's input")

    def _module(self, node: fx.Node, inputs: list[fx.Node]) -> None:
        module, name = self.modules[str(node.target)], str(node.target)
        value = inputs[0].name if inputs else ""
        shape = shape_of(inputs[0]) if inputs else None
        if isinstance(module, CONVOLUTIONS):
            self._convolution(node, module, value)
        elif isinstance(module, nn.Linear):
            self._linear(node, inputs[0], name, f"{name}.weight", None if module.bias is None else f"{name}.bias")
        elif isinstance(module, NORMS) or (isinstance(module, nn.PReLU) and module.num_parameters > 1):
            parameters = tuple((f"{name}.{key}", 0) for key, tensor in module.state_dict().items() if tensor.dim() == 1)
            self.flow.carry(node.name, [value], operation=name, parameters=parameters)
        elif isinstance(module, HeadAttention):
            self._attention(node, module, inputs)
        elif isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1 and shape is not None:
            self.flow.flatten(node.name, value, shape=shape, operation=name)
        elif (
            isinstance(module, POINTWISE_MODULES)
            or type(module).__name__ == "StochasticDepth"
            or (isinstance(module, POOLING_MODULES) and self.flow.axis(value) == 1)
        ):
            self.flow.carry(node.name, [value], operation=name)
        else:
            self._leave_whole(node, inputs, f"{type(module).__name__} ({name}) is no operation that fn3hw can slice")
        if self.calls[name] > 1 and any(True for _ in module.parameters()):
            self._pin([*inputs, node], f"{name} is used {self.calls[name]} times")

    def _convolution(self, node: fx.Node, module: nn.Module, value: str) -> None:
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        name = str(node.target)
        own = tuple((f"{name}.{key}", 0) for key, _ in module.named_parameters())
        if self.flow.axis(value) not in (None, 1):
            self.flow.pin(value, f"{name} reads another axis")
        elif module.groups == 1:
            self.flow.mix(value, operation=name, weight=f"{name}.weight", axis=1)
        elif module.in_channels == module.out_channels:
            block = module.in_channels // module.groups
            self.flow.carry(node.name, [value], operation=name, parameters=own, block=block)
            return
        else:
            self.flow.pin(value, f"the groups of {name} read and make different numbers of channels")
        slices = tuple(Slice(parameter, axis) for parameter, axis in own)
        self.flow.make(node.name, module.out_channels, operation=name, kind="conv", slices=slices)
        if module.groups > 1:
            self.flow.pin(node.name, f"the groups of {name} read and make different numbers of channels")

    def _linear(self, node: fx.Node, source: fx.Node, name: str, weight: str, bias: str | None) -> None:
        """A product with a matrix (out, in) along the last axis, whatever the axes before it."""
        shape, last = shape_of(node), len(shape_of(source) or ()) - 1
        assert shape is not None
        if self.flow.axis(source.name) == last:
            self.flow.mix(source.name, operation=name, weight=weight, axis=1)
        else:
            self._pin([source], f"{name} works along another axis")
        slices = (Slice(weight, 0), *((Slice(bias, 0),) if bias else ()))
        self.flow.make(node.name, shape[-1], operation=name, kind="linear", slices=slices, axis=last)

    def _attention(self, node: fx.Node, module: HeadAttention, inputs: list[fx.Node]) -> None:
        """Heads are blocks that never mix, as the groups of a grouped convolution are."""
        name, source, bias = str(node.target), inputs[0].name, inputs[1:]
        self.flow.split([node.name], source, parts=3, operation=name)
        self.flow.carry(node.name, [node.name], operation=name, block=module.head_dim)
        span = self.flow.span(node.name)
        for table in bias:
            parameter, heads = self._table_behind(table), (shape_of(table) or (1, 1))[1]
            if span is None or parameter is None or heads * module.head_dim != span[0].width:
                self.flow.pin(node.name, f"{name} adds what fn3hw cannot slice")
            else:
                self.flow.own(node.name, parameter, axis=1)

    def _table_behind(self, node: fx.Node) -> str | None:
        """The parameter (positions, heads) that position biases are looked up in, and nothing else reads."""
        while node.op in ("call_function", "call_method") and len(node.users) == 1:
            first = node.args[0]
            assert isinstance(first, fx.Node)
            node = first
        shape = shape_of(node)
        return str(node.target) if self._is_own_parameter(node) and shape is not None and len(shape) == 2 else None

    def _function(self, node: fx.Node, inputs: list[fx.Node]) -> None:
        method = node.target if node.op == "call_method" else None
        called = f"{getattr(node.target, '__name__', node.target)} ({node.name})"
        axis = self.flow.axis(inputs[0].name) if inputs else None
        if node.target in POINTWISE_FUNCTIONS or method in POINTWISE_METHODS:
            self.flow.pointwise(node.name, shape_of(node) or (), self._operands(inputs), operation=node.name)
        elif node.target in POOLING_FUNCTIONS and axis == 1:
            self.flow.carry(node.name, [inputs[0].name], operation=node.name)
        elif node.target in SUMS or method in SUM_METHODS:
            self.flow.pointwise(node.name, shape_of(node) or (), self._operands(inputs), operation=node.name)
            if len(inputs) > 1:
                self.flow.pin(node.name, f"the sum {node.name} ties it")
        elif node.target is F.linear and (parameters := self._parameters_of(node)) is not None:
            self._linear(node, inputs[0], parameters[0].removesuffix(".weight"), parameters[0], parameters[1])
        elif (method == "mean" or node.target is torch.mean) and self._leaves_axis(node, inputs[0], axis):
            self.flow.carry(node.name, [inputs[0].name], operation=node.name)
        elif (method == "permute" or node.target is torch.permute) and (order := _order(node)) and axis in order:
            self.flow.carry(node.name, [inputs[0].name], operation=node.name, axis=order.index(axis))
        elif (node.target is torch.flatten or method in ("flatten", "view", "reshape")) and self._flattens(
            node, inputs[0]
        ):
            self.flow.flatten(node.name, inputs[0].name, shape=shape_of(inputs[0]) or (), operation=node.name)
        else:
            self._leave_whole(node, inputs, f"{called} is no operation that fn3hw can slice")

    def _operands(self, inputs: list[fx.Node]) -> list[Operand]:
        return [Operand(_name(node), shape_of(node) or (), self._is_own_parameter(node)) for node in inputs]

    def _is_own_parameter(self, node: fx.Node) -> bool:
        """Whether a node is a parameter that nothing else reads."""
        return node.op == "get_attr" and self.reads[str(node.target)] == len(node.users) == 1

    def _parameters_of(self, node: fx.Node) -> tuple[str, str | None] | None:
        """Weight and bias of ``F.linear`` where both are parameters that nothing else reads."""
        given = (*node.args, *node.kwargs.values())[1:]
        sources = [item for item in given if isinstance(item, fx.Node)]
        if not sources or not all(self._is_own_parameter(source) for source in sources):
            return None
        return str(sources[0].target), str(sources[1].target) if len(sources) > 1 else None

    def _leaves_axis(self, node: fx.Node, source: fx.Node, axis: int | None) -> bool:
        """Whether a mean is over axes behind the channels' only, so that their place stays."""
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        shape = shape_of(source)
        if dims is None or shape is None or axis is None:
            return False
        listed = [dims] if isinstance(dims, int) else list(dims)  # type: ignore[arg-type]
        return all(isinstance(d, int) and d % len(shape) > axis for d in listed)

    def _flattens(self, node: fx.Node, source: fx.Node) -> bool:
        before, after = shape_of(source), shape_of(node)
        return (
            before is not None and after is not None and len(after) == 2 and after[0] == before[0] and len(before) >= 2
        )

    def _leave_whole(self, node: fx.Node, inputs: list[fx.Node], reason: str) -> None:
        outs = {node.name: shape_of(node) or ()}
        self.flow.leave_whole(outs, self._operands(inputs), operation=node.name, reason=reason)

    def _pin(self, nodes: list[fx.Node], reason: str) -> None:
        for node in nodes:
            self.flow.pin(node.name, reason)


def _name(node: fx.Node) -> str:
    """What the flow calls a value: parameters by their path, everything else by its node."""
    return str(node.target) if node.op == "get_attr" else node.name


def _order(node: fx.Node) -> list[int]:
    """The axes of a permutation, counted from the first, or nothing where they are not plain numbers."""
    given = node.args[1:] if len(node.args) != 2 else node.args[1]
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    listed = listed or list(node.kwargs.get("dims", ()))  # type: ignore[arg-type]
    return [d % len(listed) for d in listed if isinstance(d, int)]
