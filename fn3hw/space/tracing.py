"""A user's torch module as a torch.fx graph with shapes.

Symbolic tracing keeps the user's own modules as the leaves of the graph, so names, parameters and train/eval
behaviour stay theirs. What the graph says is read by `fn3hw.space.channels` and `fn3hw.space.branches`.
"""

from __future__ import annotations

import operator
import traceback
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from torch.nn import functional as F

from fn3hw.errors import TraceError
from fn3hw.space.attention import lower_attention

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
SUMS: frozenset[Any] = frozenset({operator.add, operator.iadd, torch.add})
SUM_METHODS = frozenset({"add", "add_"})


def trace(module: nn.Module, example_input: torch.Tensor) -> fx.GraphModule:
    """Trace ``module``; the graph shares its parameters, and its nodes know the shapes of their tensors.

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
    return graph_module


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
