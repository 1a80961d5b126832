"""The torch front end: traces a module with torch.fx and finds in its graph what can be gated.

Symbolic tracing keeps the user's own modules as the leaves of the graph, so names, parameters and train/eval
behaviour stay theirs. What an operation does to channels is looked up by module class or function in the tables below.
"""

from __future__ import annotations

import operator
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from torch.nn import functional as F

from fn3hw.errors import TraceError
from fn3hw.space.attention import ATTENTION_PREFIX, HeadAttention, lower_attention
from fn3hw.space.flow import ChannelFlow, Group, Operand, Slice

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
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
SUMS: frozenset[Any] = frozenset({operator.add, operator.iadd, torch.add})
SUM_METHODS = frozenset({"add", "add_"})


@dataclass(frozen=True)
class Branch:
    """A residual branch: ``value`` is what it adds to a stream, at ``operation``; ``stream`` identifies the stream."""

    value: str
    operation: str
    name: str
    stream: int


@dataclass(frozen=True)
class Trace:
    """A traced module and what its graph says about channels and residual branches.

    Args:
        module: the graph module; it shares its parameters with the user's module.
        groups: the channel groups, in order of execution.
        branches: the residual branches, in order of execution.
    """

    module: fx.GraphModule
    groups: list[Group]
    branches: list[Branch]


def trace(module: nn.Module, example_input: torch.Tensor) -> Trace:
    """Trace ``module`` and analyse its graph.

    Args:
        module: any module that takes one tensor and returns one tensor.
        example_input: a batch of the inputs' shape (N, ...).

    Raises:
        TraceError: the module cannot be traced, or does not run on the example; the message names the line.
    """
    graph_module = _symbolic_trace(module)
    training = graph_module.training
    graph_module.eval()
    try:
        with torch.no_grad():
            ShapeProp(graph_module).propagate(example_input)
    except Exception as error:
        raise TraceError(
            f"{type(module).__name__} does not run on the example input of shape {tuple(example_input.shape)}: {error}",
            hint="Give nest() an example input that the module accepts.",
        ) from error
    finally:
        graph_module.train(training)
    flow = _Walk(graph_module).run()
    branches = _residual_branches(graph_module, flow)
    return Trace(graph_module, flow.groups(), branches)


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the tensor that a node gives, or None where it gives something else."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if isinstance(meta, TensorMetadata) else None


def weight_of(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    """Name of the weight of a convolution or a linear layer, module or function; None for every other node."""
    if node.op == "call_module" and isinstance(modules.get(str(node.target)), (*CONVOLUTIONS, nn.Linear)):
        return f"{node.target}.weight"
    if node.target is F.linear and isinstance(source := (*node.args, *node.kwargs.values())[1], fx.Node):
        return str(source.target) if source.op == "get_attr" else None
    return None


class _Tracer(fx.Tracer):
    """Keeps stochastic depth whole, whose function form would freeze the training flag."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or type(m).__name__ == "StochasticDepth"


def _symbolic_trace(module: nn.Module) -> fx.GraphModule:
    try:
        graph = _Tracer().trace(module)
    except Exception as error:
        raise TraceError(
            f"{type(module).__name__} cannot be traced{_user_line(error)}: {error}",
            hint="Tensors must not decide Python control flow; move the test out of forward(), or give nest() the part "
            "of the network without it.",
        ) from error
    graph_module = fx.GraphModule(module, graph, type(module).__name__)
    graph_module.train(module.training)
    _unfreeze_dropout(graph_module)
    lower_attention(graph_module)
    return graph_module


def _user_line(error: BaseException) -> str:
    """The last line of the user's code on the way to the error, as text to put behind a message."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in frame.filename and frame.filename != __file__ and not frame.filename.startswith("<")
    ]
    if not frames:
        return ""
    return f' at {frames[-1].filename}:{frames[-1].lineno} ("{frames[-1].line}")'


def _unfreeze_dropout(graph_module: fx.GraphModule) -> None:
    """Replace ``F.dropout(x, p, training=self.training)``, whose flag tracing froze, by a module that has its own."""
    changed = False
    for index, node in enumerate(list(graph_module.graph.nodes)):
        if node.op == "call_function" and node.target is F.dropout:
            p = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0.5)
            name = f"functional_dropout_{index}"
            graph_module.add_submodule(name, nn.Dropout(float(p)))
            node.op, node.target, node.args, node.kwargs = "call_module", name, (node.args[0],), {}
            changed = True
    if changed:
        graph_module.recompile()


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


def _residual_branches(graph_module: fx.GraphModule, flow: ChannelFlow) -> list[Branch]:
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
