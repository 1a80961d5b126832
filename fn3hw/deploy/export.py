"""From a nested torch network to its ONNX supernet: the torch exporter runs once, here, and never per subnet."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import helper, numpy_helper, shape_inference
from onnxscript import optimizer

from fn3hw.deploy.graph import gate_initializer
from fn3hw.deploy.integers import WeightQuantizer, write_quantizers
from fn3hw.deploy.supernet import Supernet
from fn3hw.errors import InputError
from fn3hw.space.attention import HeadAttention
from fn3hw.space.nested import GateSite, Nested

BATCH_AXIS = "N"
_OPSET_OF_ATTENTION = 23
_LARGE = 1 << 30
"""Constants of any size are folded: what is left are the weights as the nodes read them."""


def export(net: Nested) -> Supernet:
    """Export a nested network to ONNX, with each gate as a named initializer and batch norm left as nodes.

    Raises:
        InputError: the torch exporter refuses the network; the message is the exporter's.
    """
    # A copy: channels-last weights, as training on CPU leaves them, would be exported as strided gathers.
    twin = copy.deepcopy(net).cpu().to(memory_format=torch.contiguous_format).eval()
    has_attention = any(isinstance(module, HeadAttention) for module in twin.modules())
    try:
        with _quiet():
            example = torch.cat([net.example_input[:1].cpu()] * 2)
            with twin.unquantized():
                program = torch.onnx.export(
                    twin,
                    (example,),
                    dynamo=True,
                    optimize=False,
                    verbose=False,
                    input_names=["input"],
                    output_names=["output"],
                    dynamic_shapes=({0: torch.export.Dim(BATCH_AXIS)},),
                    opset_version=_OPSET_OF_ATTENTION if has_attention else None,
                )
            assert program is not None
            weight_names = _transposed(program.model)
            # The exporter's own optimisation would fold batch norm into the weights, where no statistics can be set.
            optimizer.fold_constants(program.model, input_size_limit=_LARGE, output_size_limit=_LARGE)
            optimizer.remove_unused_nodes(program.model)
            model = onnx_ir.to_proto(program.model)
    except Exception as error:
        raise InputError(
            f"The network cannot be exported to ONNX: {error}", hint="Try torch.onnx.export on it."
        ) from error
    model = _Tidy(model, _gate_names(net) | weight_names).run()
    write_quantizers(model, _quantizers(net))
    return Supernet(model, net.space)


def _transposed(model: onnx_ir.Model) -> dict[str, str]:
    """From what the exporter calls a transposed weight to the name of the weight."""
    names = {}
    for node in model.graph:
        source, target = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type == "Transpose" and source is not None and source.name in model.graph.initializers:
            names[str(target.name)] = str(source.name).removeprefix("module.")
    return names


def _quantizers(net: Nested) -> list[WeightQuantizer]:
    weights: dict[str, list[str]] = {}
    for weight, (gate, _) in net.quantizers.items():
        weights.setdefault(gate, []).append(weight)
    by_gate = dict(net.quantizers.values())
    return [
        WeightQuantizer(gate, by_gate[gate].schedule, by_gate[gate].step.item(), tuple(names))
        for gate, names in weights.items()
    ]


def _gate_names(net: Nested) -> dict[str, str]:
    """From the buffers of the gate sites, as the exporter names them, to the names of gate initializers."""
    names, count = {}, dict.fromkeys((gate.name for gate in net.space), 0)
    for path, module in net.named_modules():
        if isinstance(module, GateSite):
            gate = module.gate
            if gate.level == "layer":
                names[f"{path}.value"] = gate_initializer(gate.name, block=module.blocks.start)
            else:
                names[f"{path}.value"] = gate_initializer(gate.name, site=count[gate.name])
            count[gate.name] += 1
    return names


class _Tidy:
    """Gives an exported graph the user's names, and the few forms that elimination expects."""

    def __init__(self, model: onnx.ModelProto, gate_names: dict[str, str]) -> None:
        self.model, self.gate_names = model, gate_names
        self.arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        inferred = shape_inference.infer_shapes(model).graph
        self.shape = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*inferred.input, *inferred.value_info, *inferred.output)
        }

    def run(self) -> onnx.ModelProto:
        nodes = [self._flatten(node) for node in self.model.graph.node]
        for node in nodes:
            self._drop_zero_bias(node)
        self._unshare(nodes)
        for node in nodes:
            for position, name in enumerate(node.input):
                node.input[position] = self._rename(name)
        arrays = {self._rename(name): array for name, array in self.arrays.items()}
        self._name_nodes(nodes)
        graph = self.model.graph
        nodes = self._reachable(nodes, graph.output[0].name)
        used = {name for node in nodes for name in node.input}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.name = "supernet"
        graph.node.extend(nodes)
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in arrays.items() if n in used
        )
        del self.model.metadata_props[:], graph.metadata_props[:]
        self.model.producer_name = "fn3hw"
        onnx.checker.check_model(self.model)
        return self.model

    def _rename(self, name: str) -> str:
        return self.gate_names.get(name) or name.removeprefix("module.")

    def _flatten(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A reshape to (N, -1) as Flatten, which holds for any number of channels."""
        before, after = self.shape.get(node.input[0], []) if node.input else [], self.shape.get(node.output[0], [])
        if node.op_type == "Reshape" and len(before) >= 2 == len(after) and math.prod(before[1:]) == after[1]:
            return helper.make_node("Flatten", [node.input[0]], list(node.output), node.name, axis=1)
        plain = helper.make_node(node.op_type, list(node.input), list(node.output), node.name, domain=node.domain)
        plain.attribute.extend(node.attribute)
        return plain

    def _drop_zero_bias(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Conv" and len(node.input) == 3:
            bias = self.arrays.get(node.input[2])
            if bias is not None and not bias.any():
                del node.input[2]

    def _unshare(self, nodes: list[onnx.NodeProto]) -> None:
        """A constant that several nodes read would be sliced by several gates: each reader gets its own."""
        readers: dict[str, int] = {}
        for node in nodes:
            for position, name in enumerate(node.input):
                if name in self.arrays and self.arrays[name].size > 1:
                    readers[name] = readers.get(name, 0) + 1
                    if readers[name] > 1:
                        copy = f"{name}.{readers[name]}"
                        self.arrays[copy] = self.arrays[name]
                        node.input[position] = copy

    def _name_nodes(self, nodes: list[onnx.NodeProto]) -> None:
        """Nodes with weights are called like the user's module, so that reports speak of the user's network."""
        taken: set[str] = set()
        for node in nodes:
            weight = next((n for n in node.input if n.endswith(".weight")), None)
            name = weight.removesuffix(".weight") if weight else node.name or node.op_type
            while name in taken:
                name += "'"
            taken.add(name)
            node.name = name

    @staticmethod
    def _reachable(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
        wanted, kept = {output}, []
        for node in reversed(nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        return kept[::-1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's own reports; what goes wrong comes as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
