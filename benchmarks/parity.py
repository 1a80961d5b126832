"""Sliced ONNX files against the masked torch network, for every network that fn3hw names.

Usage: python benchmarks/parity.py [SUBNETS]
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from report import report
from torch import nn

from fn3hw.deploy import Supernet, check_parity, export
from fn3hw.space import Nested, nest
from fn3hw.space.networks import build

NETWORKS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("mlp", (1, 28, 28)),
    ("mobilenet_small", (1, 28, 28)),
    ("mobilenet_small", (3, 32, 32)),
    ("resnext29", (3, 32, 32)),
    ("torchvision/mobilenet_v2", (3, 224, 224)),
    ("torchvision/mobilenet_v3_small", (3, 224, 224)),
    ("torchvision/resnet18", (3, 224, 224)),
    ("torchvision/resnet50", (3, 224, 224)),
    ("torchvision/resnext50_32x4d", (3, 224, 224)),
    ("torchvision/regnet_y_400mf", (3, 224, 224)),
    ("torchvision/vgg11_bn", (3, 224, 224)),
    ("torchvision/efficientnet_b0", (3, 224, 224)),
    ("torchvision/vit_b_16", (3, 224, 224)),
    ("torchvision/swin_t", (3, 224, 224)),
)
"""Networks and the shape of their input; all levels that they have are gated, but for bits (see integers.py)."""


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    torch.set_num_threads(2)
    rows = [network_parity(*network, count=count) for network in NETWORKS]
    mobilenet = next(row for row in rows if row["network"] == "torchvision/mobilenet_v2")
    figures = {
        "subnets_per_network": count,
        "worst_relative_difference": max(row["worst_relative"] for row in rows),
        "mobilenet_v2_slice_ms": mobilenet["slice_ms_median"],
        "mobilenet_v2_export_over_slice": 1000 * mobilenet["export_s"] / mobilenet["slice_ms_median"],
        "networks": rows,
    }
    report("parity", figures)


def network_parity(name: str, shape: tuple[int, ...], *, count: int) -> dict[str, object]:
    """Parity of random subnets, half of them with masks that are no prefix, and how long slicing and exporting take."""
    torch.manual_seed(0)
    net = nest(liven(build(name, n_classes=10, input_shape=shape)), torch.zeros(1, *shape), None).eval()
    started = time.perf_counter()
    supernet = export(net)
    export_s = time.perf_counter() - started
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape)).astype(np.float32)
    worst, slice_ms = 0.0, []
    for index in range(count):
        subnet = net.space.random(rng, prefix=index % 2 == 0)
        started = time.perf_counter()
        model = supernet.slice(subnet)
        slice_ms.append(1000 * (time.perf_counter() - started))
        worst = max(worst, check_parity(net, subnet, model, x).relative)
    row = {
        "network": name,
        "input": list(shape),
        "levels": list(net.space.levels),
        "gates": len(net.space),
        "blocks": net.space.n_blocks,
        "worst_relative": worst,
        "slice_ms_median": float(np.median(slice_ms)),
        "slice_ms_max": float(np.max(slice_ms)),
        "export_s": export_s,
        "smallest_over_full_bytes": smallest_over_full(supernet, net),
    }
    print(row, file=sys.stderr)
    return row


def smallest_over_full(supernet: Supernet, net: Nested) -> float:
    """File size of the smallest subnet over that of the full one."""
    sizes = [supernet.slice(subnet).ByteSize() for subnet in (net.space.smallest(), net.space.full())]
    return sizes[0] / sizes[1]


def liven(module: nn.Module) -> nn.Module:
    """Batch-norm statistics, scales and biases that make every channel matter, as training would."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.1, 0.3)
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
        elif isinstance(part, nn.Linear):
            if part.bias is not None:
                nn.init.normal_(part.bias, 0.0, 0.1)
            if not part.weight.any():
                nn.init.normal_(part.weight, 0.0, part.in_features**-0.5)
    for name, parameter in module.named_parameters():
        if name.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.2, 1.0)
    return module


if __name__ == "__main__":
    main()
