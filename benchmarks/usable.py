"""Seconds until a profile of MobileNetV2 at 224×224 is usable: its cost model's error is at most 2%.

Measured by need, as `fn3hw profile --target-mape 0.02` does. Whether the target is really met is told by 60 random
subnets that are measured afterwards.
Usage: python benchmarks/usable.py [TARGET]
"""

from __future__ import annotations

import sys
import time

from cost_model import FOLDER, TEST, tell, torchvision_supernet
from report import report

from fn3hw.cost import fit_cost
from fn3hw.cost.sampling import profile_until
from fn3hw.deploy import Supernet
from fn3hw.profiler import Measurement, Profile, holdout, profile

ROUNDS = 6
"""Of each subnet that is tested on."""


def main() -> None:
    target = float(sys.argv[1]) if len(sys.argv) > 1 else 0.02
    supernet = torchvision_supernet("mobilenet_v2")
    started = time.monotonic()
    measured = profile_until(supernet, "local", target_mape=target, name="mobilenet_v2")
    seconds = time.monotonic() - started
    cost = fit_cost(measured.model_copy(update={"measurements": (*measured.fitted, *tests(supernet, measured))}))
    report(
        "usable",
        {
            "network": "torchvision mobilenet_v2, 224x224, level channel",
            "full_latency_ms": measured.reference.latency_ms,
            "target_mape": target,
            "seconds": seconds,
            "subnets": len(measured.fitted),
            "stopped_by": measured.settings["sampling"]["stopped_by"],
            "error_on_left_out_subnets": measured.settings["sampling"]["error"],
            "on_random_subnets": cost.holdout.to_json(),
            "repeat_mape": measured.noise.repeat_mape,
            "verdict": measured.verdict,
        },
    )


def tests(supernet: Supernet, measured: Profile) -> list[Measurement]:
    """Random subnets that were not fitted on, measured to be held out."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    journal = FOLDER / "usable.journal"
    fitted = [supernet.space.parse(m.subnet) for m in measured.fitted]
    chosen = holdout(supernet.space, TEST, exclude=fitted)
    found = profile(supernet, "local", subnets=chosen, rounds=ROUNDS, journal=journal, progress=tell)
    journal.unlink()
    return [m.model_copy(update={"role": "holdout"}) for m in found.measurements]


if __name__ == "__main__":
    main()
