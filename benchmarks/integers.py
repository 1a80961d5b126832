"""Files of integers against the masked torch network, on a trained run that has bits.

For random subnets with integer weights: a file with integer weights and activations in fp32, and the final file, whose
activations are 8-bit integers, each against torch with masks and quantized weights and the same batch-norm statistics.
Usage: python benchmarks/integers.py RUN [SUBNETS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from evaluator import trained_torch
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.deploy import Statistics, Supernet, activation_ranges, recalibrate
from fn3hw.deploy.runtime import open_session
from fn3hw.space import Nested, Subnet

IMAGES = 2000
CALIBRATION = 512


def main() -> None:
    opened = OpenRun(Path(sys.argv[1]), Console(as_json=False))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    net, supernet = trained_torch(opened), opened.supernet
    images, _ = opened.data.arrays("test", IMAGES)
    calibration = opened.data.arrays("train", CALIBRATION)[0]
    rng = np.random.default_rng(0)
    rows = []
    for index in range(count):
        subnet = with_integers(supernet, supernet.space.random(rng, prefix=index % 2 == 0), rng)
        statistics = recalibrate(supernet, subnet, calibration)
        expected = masked_logits(net, supernet, subnet, statistics, images)
        weights_only = supernet.slice(subnet, statistics)
        integer = supernet.slice(subnet, statistics, ranges=activation_ranges(weights_only, calibration))
        row = {"subnet": subnet.id}
        for name, model in (("weights", weights_only), ("weights_and_activations", integer)):
            (logits,) = open_session(model, threads=2).run(None, {model.graph.input[0].name: images})
            row[f"{name}_equal_pct"] = 100 * float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
            row[f"{name}_logit_error"] = float(np.abs(logits - expected).mean() / np.abs(expected).max())
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


def with_integers(supernet: Supernet, subnet: Subnet, rng: np.random.Generator) -> Subnet:
    """The subnet with all weights as integers: at random numbers of steps."""
    kept = {name: subnet.blocks(name) for name in subnet.counts}
    for quantizer in supernet.quantizers.values():
        steps = len(quantizer.schedule.levels)
        kept[quantizer.gate] = tuple(range(int(rng.integers(1, steps + 1))))
    return supernet.space.from_blocks(kept)


def masked_logits(
    net: Nested, supernet: Supernet, subnet: Subnet, statistics: Statistics, images: np.ndarray
) -> np.ndarray:
    """Logits of torch with masks and quantized weights, and the given statistics in the kept channels."""
    masks = supernet.space.masks(subnet)
    modules = dict(net.module.named_modules())
    for node in supernet.graph.nodes:
        if node.name not in statistics:
            continue
        norm = modules[node.name]
        for buffer, name, values in zip(
            (norm.running_mean, norm.running_var), node.input[3:5], statistics[node.name], strict=True
        ):
            cuts = supernet.graph.cuts.get(name)
            kept = np.flatnonzero(masks[cuts[0].gate]) if cuts else np.arange(len(buffer))
            buffer[torch.from_numpy(kept)] = torch.from_numpy(values)
    with torch.no_grad(), net.active(subnet, sliced=False):
        parts = torch.from_numpy(images).split(250)
        return torch.cat([net(part.contiguous(memory_format=torch.channels_last)) for part in parts]).numpy()


if __name__ == "__main__":
    main()
