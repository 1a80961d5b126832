"""The cost model on torchvision's MobileNetV2 at 224×224, its hidden widths random and unaligned.

Fitted on the subnets of the sampling plan, tested on uniformly random ones, beside the repeat noise of the same
measurements and simpler models fitted on the same subnets.
Usage: python benchmarks/cost_model.py [FIT] [TEST] [PROFILE]; an existing profile file is read instead of measured.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from report import report

from fn3hw.cost import fit_cost
from fn3hw.cost.validation import Predictor, comparators, compare, count_macs
from fn3hw.deploy import Supernet, export
from fn3hw.profiler import Profile, Progress, profile
from fn3hw.space import nest
from fn3hw.space.networks import build


def main() -> None:
    n_fit = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    n_test = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    path = Path(sys.argv[3] if len(sys.argv) > 3 else "runs/mobilenet_v2.profile.json")
    supernet = mobilenet()
    started = time.monotonic()
    if not path.is_file():
        journal = path.with_suffix(".journal")
        journal.parent.mkdir(parents=True, exist_ok=True)
        profile(
            supernet, "local", n_fit, holdout=n_test, name="mobilenet_v2", journal=journal, progress=tell
        ).write(path)  # fmt: skip
    seconds = time.monotonic() - started
    measured = Profile.read(path)
    measured.check_network(supernet.architecture)
    space, cost = supernet.space, fit_cost(measured)
    predictors: dict[str, Predictor] = {
        "fn3hw": lambda subnets: cost.predict(subnets)["latency_ms"].to_numpy(),
        **comparators(measured, macs=lambda subnet: count_macs(supernet.slice(subnet))),
    }
    truth = np.array([m.latency_ms for m in measured.held_out])
    tested = [space.parse(m.subnet) for m in measured.held_out]
    rows = {}
    for name, metrics in compare(measured, predictors).items():
        worst = float(np.abs(predictors[name](tested) / truth - 1).max())
        rows[name] = {**metrics.to_json(), "worst": worst}
    widths = np.array([list(m.counts.values()) for m in measured.held_out])
    report(
        "cost_model",
        {
            "network": "torchvision mobilenet_v2, 224x224, level channel",
            "fitted_on": len(measured.fitted),
            "tested_on": len(measured.held_out),
            "measuring_seconds": seconds,
            "full_latency_ms": measured.reference.latency_ms,
            "verdict": measured.verdict,
            "repeat_mape": measured.noise.repeat_mape,
            "cpu_share": measured.noise.cpu_share,
            "reference_drift": measured.reference.drift,
            "rules": str(cost.rules),
            "tested_widths_that_are_no_multiple_of_4": float(np.mean(widths % 4 != 0)),
            "models": rows,
        },
    )


def mobilenet() -> Supernet:
    """MobileNetV2 with random weights, its hidden widths gated."""
    torch.manual_seed(0)
    module = build("torchvision/mobilenet_v2", n_classes=1000, input_shape=(3, 224, 224)).eval()
    return export(nest(module, torch.zeros(1, 3, 224, 224), ("channel",), keep={"channel": 0.25}))


def tell(progress: Progress) -> None:
    """Say how far measuring is."""
    print(progress.stage, progress.done, progress.total, round(progress.remaining_s or 0), "s left", file=sys.stderr)


if __name__ == "__main__":
    main()
