"""The evaluator against torch: images per second, and how near closed-form batch norm comes to true recalibration.

Usage: python benchmarks/evaluator.py RUN [SUBNETS]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from report import report
from scipy.stats import spearmanr
from torch import nn

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.searcher import Evaluator
from fn3hw.space import Nested, Subnet
from fn3hw.training import recipe_network

CALIBRATION = 512
IMAGES = 1000
SPEED_SUBNETS = 8
THREADS = 2


def main() -> None:
    opened = OpenRun(Path(sys.argv[1]), Console(as_json=False))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    torch.set_num_threads(THREADS)
    net = trained_torch(opened)
    calibration = opened.data.arrays("train", 2048)[0][-CALIBRATION:]
    images, labels = opened.data.arrays("search", IMAGES)
    evaluator = Evaluator(opened.supernet, opened.moments, images, labels, threads=THREADS)
    rng = np.random.default_rng(0)
    subnets = [net.space.random(rng, prefix=True) for _ in range(count)]
    ours_s, torch_s, rows = [], [], []
    for index, subnet in enumerate(subnets):
        started = time.perf_counter()
        ours = evaluator.accuracy(subnet)
        ours_s.append(time.perf_counter() - started)
        started = time.perf_counter()
        true = recalibrated_accuracy(net, subnet, calibration, images, labels, sliced=index >= SPEED_SUBNETS)
        if index < SPEED_SUBNETS:
            torch_s.append(time.perf_counter() - started)
        rows.append((true, ours))
    table = np.array(rows)
    stored = Evaluator(opened.supernet, None, images, labels, threads=THREADS, bn="stored")
    uncorrected = np.array([stored.accuracy(subnet) for subnet in subnets[:30]])
    per_second = IMAGES / np.mean(ours_s[:SPEED_SUBNETS]), IMAGES / np.mean(torch_s)
    report(
        "evaluator",
        {
            "subnets": count,
            "images": IMAGES,
            "threads": THREADS,
            "images_per_second": per_second[0],
            "torch_images_per_second": per_second[1],
            "speed_up": per_second[0] / per_second[1],
            "mean_gap_points": float(np.abs(table[:, 0] - table[:, 1]).mean()),
            "mean_signed_gap_points": float((table[:, 1] - table[:, 0]).mean()),
            "spearman": float(spearmanr(table[:, 0], table[:, 1])[0]),
            "without_correction": {
                "subnets": len(uncorrected),
                "mean_gap_points": float(np.abs(table[: len(uncorrected), 0] - uncorrected).mean()),
                "spearman": float(spearmanr(table[: len(uncorrected), 0], uncorrected)[0]),
            },
        },
    )


def trained_torch(opened: OpenRun) -> Nested:
    """The run's network in torch with its trained weights, channels last, as fast as eager mode runs it here."""
    net = recipe_network(opened.run.recipe, opened.data)
    net.load_state_dict(opened.run.load_weights())
    return net.to(memory_format=torch.channels_last)


def recalibrated_accuracy(
    net: Nested, subnet: Subnet, calibration: np.ndarray, images: np.ndarray, labels: np.ndarray, *, sliced: bool
) -> float:
    """Accuracy in percent of a subnet in eager torch after its batch norm has seen the calibration images.

    Args:
        net: the network; its own statistics are restored afterwards.
        subnet: what is evaluated.
        calibration: images that batch norm is recalibrated on.
        images: images that accuracy is taken on.
        labels: their labels.
        sliced: run the subnet at its real size; False masks the full network.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(m.running_mean.clone(), m.running_var.clone(), m.momentum) for m in norms]
    try:
        with torch.no_grad(), net.active(subnet, sliced=sliced):
            net.train()
            parts = torch.from_numpy(calibration).split(256)
            for number, part in enumerate(parts, start=1):
                for norm in norms:
                    norm.momentum = 1.0 / number
                net(part.contiguous(memory_format=torch.channels_last))
            net.eval()
            batches = torch.from_numpy(images).split(250)
            logits = [net(part.contiguous(memory_format=torch.channels_last)) for part in batches]
        return float(100 * (torch.cat(logits).argmax(dim=1).numpy() == labels).mean())
    finally:
        net.eval()
        for norm, (mean, variance, momentum) in zip(norms, before, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.momentum = momentum


if __name__ == "__main__":
    main()
