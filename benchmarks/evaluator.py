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

CALIBRATION = 2048
IMAGES = 1000
GAP_IMAGES = 4000
SPEED_SUBNETS = 8
UNCORRECTED = 30
THREADS = 2


def main() -> None:
    opened = OpenRun(Path(sys.argv[1]), Console(as_json=False))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    torch.set_num_threads(THREADS)
    net = trained_torch(opened)
    calibration = opened.data.arrays("train")[0][-CALIBRATION:]
    images, labels = opened.data.arrays("search", GAP_IMAGES)
    rng = np.random.default_rng(0)
    subnets = [net.space.random(rng, prefix=True) for _ in range(count)]
    speed = speeds(opened, net, subnets[:SPEED_SUBNETS], calibration[:IMAGES], images[:IMAGES], labels[:IMAGES])
    evaluator = Evaluator(opened.supernet, opened.moments, images, labels, threads=THREADS)
    stored = Evaluator(opened.supernet, None, images, labels, threads=THREADS, bn="stored")
    true, ours = np.empty(count), np.empty(count)
    for index, subnet in enumerate(subnets):
        true[index] = recalibrated_accuracy(net, subnet, calibration, images, labels, sliced=True)
        ours[index] = evaluator.accuracy(subnet)
        print(index, true[index], ours[index], file=sys.stderr)
    uncorrected = np.array([stored.accuracy(subnet) for subnet in subnets[:UNCORRECTED]])
    report(
        "evaluator-joint" if opened.supernet.quantizers else "evaluator",
        {
            "threads": THREADS,
            **speed,
            "subnets": count,
            "images": len(labels),
            "calibration_images": CALIBRATION,
            "true_accuracy_range": [float(true.min()), float(true.max())],
            **agreement(true, ours),
            "without_correction": {"subnets": UNCORRECTED, **agreement(true[:UNCORRECTED], uncorrected)},
        },
    )


def speeds(
    opened: OpenRun, net: Nested, subnets: list[Subnet], calibration: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Evaluated images per second, in turns: ours, and eager torch masked with recalibration on as many images."""
    evaluator = Evaluator(opened.supernet, opened.moments, images, labels, threads=THREADS)
    seconds: dict[str, list[float]] = {"ours": [], "torch": []}
    for subnet in subnets:
        started = time.perf_counter()
        evaluator.accuracy(subnet)
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        recalibrated_accuracy(net, subnet, calibration, images, labels, sliced=False)
        seconds["torch"].append(time.perf_counter() - started)
    ours, eager = (len(labels) / float(np.median(values)) for values in seconds.values())
    return {"images_per_second": ours, "torch_images_per_second": eager, "speed_up": ours / eager}


def agreement(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """How near accuracies come to the true ones, in points, and whether they rank alike."""
    gap = found - true
    return {
        "mean_gap_points": float(np.abs(gap).mean()),
        "mean_signed_gap_points": float(gap.mean()),
        "spearman": float(spearmanr(true, found)[0]),
    }


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
