"""Files of integers against the masked torch network, on a trained run that has bits.

For random subnets with integer weights, with the same batch-norm statistics everywhere: a file with integer weights and
activations in fp32 against torch with masks and quantized weights; and the final file, whose kernels compute on
integers, against torch that also rounds its activations to 8 bits and its biases where the file does, and against torch
that does not. Torch computes in fp64: in fp32 its own rounding moves some activations across to the next integer.
Usage: python benchmarks/integers.py RUN [SUBNETS]
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from evaluator import trained_torch
from onnx import numpy_helper
from report import report
from torch import nn

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.deploy import Statistics, Supernet, activation_ranges, recalibrate
from fn3hw.deploy.activations import Ranges, bias_of, quantization
from fn3hw.deploy.runtime import open_session
from fn3hw.space import Nested, Subnet

IMAGES = 2000
CALIBRATION = 512
KINDS = {
    nn.Conv2d: "Conv",
    nn.BatchNorm2d: "BatchNormalization",
    nn.ReLU: "Relu",
    nn.ReLU6: "Clip",
    nn.Linear: "Gemm",
    operator.add: "Add",
}
"""Operations of torch and what they are in the file."""


class Border(nn.Module):
    """Rounds what passes to unsigned 8-bit integers of a range, where it has one."""

    range: tuple[float, float] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        if self.range is None:
            return x
        return torch.fake_quantize_per_tensor_affine(x, *quantization(*self.range), 0, 255)


def main() -> None:
    opened = OpenRun(Path(sys.argv[1]), Console(as_json=False))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    net, supernet = trained_torch(opened).eval().double(), opened.supernet
    borders = put_borders(net, supernet)
    images, _ = opened.data.arrays("test", IMAGES)
    calibration = opened.data.arrays("train", CALIBRATION)[0]
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        subnet = with_integers(supernet, supernet.space.random(rng, prefix=index % 2 == 0), rng)
        statistics = recalibrate(supernet, subnet, calibration)
        weights_only = supernet.slice(subnet, statistics)
        ranges = activation_ranges(weights_only, calibration)
        set_statistics(net, supernet, subnet, statistics)
        exact = masked_logits(net, subnet, images, borders, {})
        model = supernet.slice(subnet, statistics, ranges=ranges)
        with rounded_biases(net, supernet, subnet, model):
            rounded = masked_logits(net, subnet, images, borders, ranges)
        integer = logits(model, images)
        row = {
            "subnet": subnet.id,
            **compared("integer_weights", logits(weights_only, images), exact),
            **compared("integer_kernels", integer, rounded),
            **compared("integer_kernels_against_fp32_activations", integer, exact),
        }
        rows.append(row)
        print(row, file=sys.stderr)
    keys = [key for key in rows[0] if key != "subnet"]
    report(
        "integers",
        {
            "subnets": count,
            "images": IMAGES,
            **{f"mean_{key}": float(np.mean([row[key] for row in rows])) for key in keys},
            **{f"lowest_{key}": min(row[key] for row in rows) for key in keys if key.endswith("pct")},
        },
    )


def put_borders(net: Nested, supernet: Supernet) -> dict[str, Border]:
    """Put a border behind every operation of the torch network, under the name that its output has in the file."""
    graph, modules = net.module.graph, dict(net.module.named_modules())
    operations = [
        (node, kind)
        for node in graph.nodes
        if (kind := KINDS.get(type(modules[node.target]) if node.op == "call_module" else node.target))
    ]
    outputs = [(node.output[0], node.op_type) for node in supernet.graph.nodes if node.op_type in KINDS.values()]
    if [kind for _, kind in operations] != [kind for _, kind in outputs]:
        raise SystemExit("The operations of the torch network are not in the order of the file's.")
    image = next(node for node in graph.nodes if node.op == "placeholder")
    behind = {supernet.graph.input: image} | {
        name: node for (node, _), (name, _) in zip(operations, outputs, strict=True)
    }
    borders = {}
    for number, (name, node) in enumerate(behind.items()):
        net.module.add_submodule(f"border_{number}", borders.setdefault(name, Border()))
        with graph.inserting_after(node):
            border = graph.call_module(f"border_{number}")
        node.replace_all_uses_with(border)
        border.args = (node,)
    net.module.recompile()
    return borders


def with_integers(supernet: Supernet, subnet: Subnet, rng: np.random.Generator) -> Subnet:
    """The subnet with all weights as integers: at random numbers of steps."""
    kept = {name: subnet.blocks(name) for name in subnet.counts}
    for quantizer in supernet.quantizers.values():
        steps = len(quantizer.schedule.levels)
        kept[quantizer.gate] = tuple(range(int(rng.integers(1, steps + 1))))
    return supernet.space.from_blocks(kept)


def set_statistics(net: Nested, supernet: Supernet, subnet: Subnet, statistics: Statistics) -> None:
    """Give the torch network a subnet's batch-norm statistics, in the channels that it keeps."""
    masks, modules = supernet.space.masks(subnet), dict(net.module.named_modules())
    for node in supernet.graph.nodes:
        if node.name not in statistics:
            continue
        norm = modules[node.name]
        for buffer, name, values in zip(
            (norm.running_mean, norm.running_var), node.input[3:5], statistics[node.name], strict=True
        ):
            cuts = supernet.graph.cuts.get(name)
            kept = np.flatnonzero(masks[cuts[0].gate]) if cuts else np.arange(len(buffer))
            buffer[torch.from_numpy(kept)] = torch.from_numpy(values).double()


@contextmanager
def rounded_biases(net: Nested, supernet: Supernet, subnet: Subnet, model: onnx.ModelProto) -> Iterator[None]:
    """Within the context, what torch adds to the products of a layer is what the file adds as integers."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    modules, masks = dict(net.module.named_modules()), supernet.space.masks(subnet)
    before = {name: parameter.detach().clone() for name, parameter in net.module.named_parameters()}
    for node in supernet.graph.nodes:
        name = bias_of(node.name)
        if f"{name}/integers" not in arrays:
            continue
        added = torch.from_numpy(arrays[f"{name}/integers"] * arrays[f"{name}/scale"].astype(np.float64))
        readers = [other for other in supernet.graph.nodes if node.output[0] in other.input]
        norm = modules[readers[0].name] if readers and readers[0].op_type == "BatchNormalization" else None
        cuts = supernet.graph.cuts.get(readers[0].input[1] if norm is not None else node.input[1], ())
        own = next((cut.gate for cut in cuts if cut.layout.axis == 0), None)
        kept = torch.from_numpy(np.flatnonzero(masks[own])) if own else slice(None)
        if norm is not None:
            added += (norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps))[kept]
        with torch.no_grad():
            (norm or modules[node.name]).bias[kept] = added
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in net.module.named_parameters():
                parameter.copy_(before[name])


def masked_logits(
    net: Nested, subnet: Subnet, images: np.ndarray, borders: dict[str, Border], ranges: Ranges
) -> np.ndarray:
    """Logits of torch with masks and quantized weights, rounded where there is a range."""
    for name, border in borders.items():
        border.range = ranges.get(name)
    with torch.no_grad(), net.active(subnet, sliced=False):
        parts = torch.from_numpy(images).double().split(250)
        return torch.cat([net(part.contiguous(memory_format=torch.channels_last)) for part in parts]).numpy()


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Logits of a file."""
    (found,) = open_session(model, threads=2).run(None, {model.graph.input[0].name: images})
    return found  # type: ignore[no-any-return]


def compared(name: str, found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Share of equal predictions, and the mean error of a logit over the largest one."""
    return {
        f"{name}_equal_pct": 100 * float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        f"{name}_logit_error": float(np.abs(found - expected).mean() / np.abs(expected).max()),
    }


if __name__ == "__main__":
    main()
