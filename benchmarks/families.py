"""`nest()` over torchvision's classification models: one of each family, what is gated, and whether files agree.

Per model: gates per level, the share of its parameters and of its latency that gates can remove (full against smallest
subnet, timed in turns), the largest relative difference of sliced files to the masked network over random subnets, and
the most frequent reasons for what was left whole. Each model in a process of its own, since some need much memory.
Usage: python benchmarks/families.py [SUBNETS]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from parity import liven
from report import report

from fn3hw.deploy import check_parity, export
from fn3hw.deploy.runtime import open_session
from fn3hw.errors import Fn3hwError
from fn3hw.space import nest
from fn3hw.space.networks import build

FAMILIES = {
    "alexnet": 224,
    "convnext_tiny": 224,
    "densenet121": 224,
    "efficientnet_b0": 224,
    "efficientnet_v2_s": 224,
    "googlenet": 224,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet1_0": 224,
    "mobilenet_v2": 224,
    "mobilenet_v3_small": 224,
    "regnet_x_400mf": 224,
    "regnet_y_400mf": 224,
    "resnet18": 224,
    "resnet50": 224,
    "resnext50_32x4d": 224,
    "shufflenet_v2_x1_0": 224,
    "squeezenet1_1": 224,
    "swin_t": 224,
    "vgg11_bn": 224,
    "vit_b_16": 224,
    "wide_resnet50_2": 224,
}
OPTIONS = {"googlenet": {"aux_logits": False, "init_weights": False}, "inception_v3": {"aux_logits": False}}
REPEATS = 20


def main() -> None:
    if len(sys.argv) > 2:
        print(json.dumps(examine(sys.argv[1], int(sys.argv[2]))))
        return
    count = sys.argv[1] if len(sys.argv) > 1 else "10"
    rows = []
    for name in FAMILIES:
        child = subprocess.run([sys.executable, __file__, name, count], capture_output=True, text=True)
        lines = child.stdout.splitlines()
        rows.append(json.loads(lines[-1]) if lines else {"model": name, "error": child.stderr.splitlines()[-1:]})
        print(rows[-1], file=sys.stderr)
    nested = [row for row in rows if row.get("gates")]
    report(
        "families",
        {
            "models": len(rows),
            "nested": len(nested),
            "subnets_per_model": int(count),
            "worst_relative_difference": max(row["worst_relative"] for row in nested),
            "rows": rows,
        },
    )


def examine(name: str, count: int) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    size = FAMILIES[name]
    options = OPTIONS.get(name, {})
    module = liven(build(f"torchvision/{name}", n_classes=10, input_shape=(3, size, size), **options)).eval()
    try:
        net = nest(module, torch.zeros(1, 3, size, size), None).eval()
        supernet = export(net)
    except Fn3hwError as error:
        return {"model": name, "gates": {}, "error": error.message}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, size, size)).astype(np.float32)
    drawn = [net.space.random(rng, prefix=index % 2 == 0) for index in range(count)]
    worst = max(check_parity(net, subnet, supernet.slice(subnet), x).relative for subnet in drawn)
    full, smallest = supernet.slice(net.space.full()), supernet.slice(net.space.smallest())
    ratio = latency_ratio(full.SerializeToString(), smallest.SerializeToString(), x[:1])
    return {
        "model": name,
        "gates": dict(Counter(gate.level for gate in net.space)),
        "blocks": net.space.n_blocks,
        "removable_parameters": 1 - smallest.ByteSize() / full.ByteSize(),
        "removable_latency": 1 - ratio,
        "worst_relative": worst,
        "left_whole": Counter(item.reason for item in net.report).most_common(3),
    }


def latency_ratio(full: bytes, smallest: bytes, x: np.ndarray) -> float:
    """Latency of the smallest file over that of the full one: the median over runs in turns, one thread."""
    sessions = [open_session(model, threads=1) for model in (full, smallest)]
    names = [session.get_inputs()[0].name for session in sessions]
    ratios = []
    for _ in range(REPEATS):
        times = []
        for session, name in zip(sessions, names, strict=True):
            started = time.perf_counter()
            session.run(None, {name: x})
            times.append(time.perf_counter() - started)
        ratios.append(times[1] / times[0])
    return float(np.median(ratios[2:]))


if __name__ == "__main__":
    main()
