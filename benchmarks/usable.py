"""Seconds until a profile of MobileNetV2 at 224×224 is usable: its cost model's error is at most 2%.

Measured by need, as `fn3hw profile --target-mape 0.02` does. Whether the target is really met is told by 60 random
subnets that `cost_model.py mobilenet_v2` measured on the same machine.
Usage: python benchmarks/usable.py [TARGET]
"""

from __future__ import annotations

import sys
import time

from cost_model import FOLDER, torchvision_supernet
from report import report

from fn3hw.cost import fit_cost
from fn3hw.cost.sampling import profile_until
from fn3hw.profiler import Profile


def main() -> None:
    target = float(sys.argv[1]) if len(sys.argv) > 1 else 0.02
    supernet = torchvision_supernet("mobilenet_v2")
    tested = Profile.read(FOLDER / "mobilenet_v2.json")
    tested.check_network(supernet.architecture)
    started = time.monotonic()
    measured = profile_until(supernet, "local", target_mape=target, name="mobilenet_v2")
    seconds = time.monotonic() - started
    known = measured.model_copy(update={"measurements": (*measured.measurements, *tested.held_out)})
    cost = fit_cost(known)
    report(
        "usable",
        {
            "network": "torchvision mobilenet_v2, 224x224, level channel",
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


if __name__ == "__main__":
    main()
