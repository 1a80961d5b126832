"""The cost model over the number of measured subnets, on subnets of random, unaligned counts.

Networks: torchvision's MobileNetV2 and ResNet-50 at 224×224 with their widths gated, the network of a packaged recipe
(fashion-mnist-joint: channels, layers and bits), or a trained run. The weights of the first two are random: latency
does not depend on them, and a profile serves any training of its network. Fitted on 5, 10, 20, 40 and 80 subnets of the
sampling plan, each set but the first within the next; tested on 60 uniformly random ones, beside the repeat noise of
the same measurements and simpler models fitted on the same subnets.
Usage: python benchmarks/cost_model.py mobilenet_v2 | resnet50 | RECIPE | RUN; profiles are kept in runs/cost and gone
on with
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import fit_cost
from fn3hw.cost.validation import Predictor, comparators, compare, count_macs
from fn3hw.deploy import Supernet, export
from fn3hw.profiler import Profile, Progress, plan, profile
from fn3hw.space import Bits, nest
from fn3hw.space.networks import build
from fn3hw.space.subnet import SearchSpace, Subnet
from fn3hw.training import Recipe, recipe_data, recipe_network

FOLDER = Path("runs/cost")
SIZES = (5, 10, 20, 40, 80)
TEST = 60
ROUNDS = 6
SLOW = {"resnet50": 3}
"""Rounds of each subnet that is fitted on, fewer of a network whose runs take long. Those that are tested on have twice
as many: they stand for the truth."""


def main() -> None:
    name = sys.argv[1].rstrip("/")
    supernet = named_supernet(name)
    name = Path(name).name
    measured = measure(supernet, name)
    curves = {size: scores(supernet, subset(measured, size)) for size in SIZES}
    cost = fit_cost(subset(measured, SIZES[-1]))
    counts = np.array([list(m.counts.values()) for m in measured.held_out])
    report(
        f"cost_model-{name}",
        {
            "network": name,
            "measured_on": measured_on(measured),
            "levels": list(supernet.space.levels),
            "gates": len(supernet.space),
            "tested_on": TEST,
            "full_latency_ms": measured.reference.latency_ms,
            "verdict": measured.verdict,
            "reasons": list(measured.reasons),
            "repeat_mape": measured.noise.repeat_mape,
            "cpu_share": measured.noise.cpu_share,
            "reference_drift": measured.reference.drift,
            "rules": str(cost.rules),
            "tested_counts_that_are_no_multiple_of_4": float(np.mean(counts % 4 != 0)),
            "by_fitted_subnets": curves,
        },
    )


def measured_on(measured: Profile) -> str:
    """The processor and the runtime of a profile, which may be another machine's than the one that fits it."""
    return f"{measured.device['cpu_model']}, ONNX Runtime {measured.device['onnxruntime']}"


def designs(space: SearchSpace) -> dict[int, list[Subnet]]:
    """Subnets of the sampling plan by how many there are; each set is within the next, and a plan of its own."""
    found = {SIZES[0]: plan(space, SIZES[0])}
    chosen: list[Subnet] = []
    for number, size in enumerate(SIZES[1:]):
        corners = 0 if not chosen else 2
        chosen = list(dict.fromkeys([*chosen, *plan(space, size - len(chosen) + corners, seed=number)]))[:size]
        found[size] = chosen
    return found


def measure(supernet: Supernet, name: str) -> Profile:
    """The profile of all designs, from its file where it is there."""
    path = FOLDER / f"{name}.json"
    if path.is_file():
        measured = Profile.read(path)
        if measured.network.gates != supernet.space.to_json():  # torch of another version exports another graph
            measured.check_network(supernet.architecture)
        return measured
    FOLDER.mkdir(parents=True, exist_ok=True)
    rounds = SLOW.get(name, ROUNDS)
    wanted = list(dict.fromkeys(subnet for chosen in designs(supernet.space).values() for subnet in chosen))
    measured = profile(
        supernet,
        "local",
        subnets=wanted,
        holdout=TEST,
        rounds=rounds,
        holdout_rounds=2 * rounds,
        name=name,
        journal=path.with_suffix(".journal"),
        progress=tell,
    )
    measured.write(path)
    return measured


def subset(measured: Profile, size: int) -> Profile:
    """The profile with the subnets of one design to fit on, and all to test on."""
    return restricted(measured, designs(measured.space)[size])


def restricted(known: Profile, fit: Sequence[Subnet]) -> Profile:
    """The profile with some of its subnets to fit on, and all to test on."""
    wanted = {subnet.id for subnet in fit}
    kept = tuple(m for m in known.measurements if m.role == "holdout" or m.subnet in wanted)
    return known.model_copy(update={"measurements": kept})


def scores(supernet: Supernet, measured: Profile) -> dict[str, Any]:
    """Accuracy of the cost model and of simpler ones on the held-out subnets."""
    cost = fit_cost(measured)
    predictors: dict[str, Predictor] = {
        "fn3hw": lambda subnets: cost.predict(subnets)["latency_ms"].to_numpy(),
        **comparators(measured, macs=lambda subnet: count_macs(supernet.slice(subnet))),
    }
    truth = np.array([m.ratio for m in measured.held_out]) * measured.full_cost
    tested = [measured.space.parse(m.subnet) for m in measured.held_out]
    rows = {}
    for name, metrics in compare(measured, predictors).items():
        worst = float(np.abs(predictors[name](tested) / truth - 1).max())
        rows[name] = {**metrics.to_json(), "worst": worst}
    rows["fn3hw"]["coverage"] = cost.holdout.coverage
    rows["fn3hw"]["over_repeat_noise"] = cost.holdout.mape / measured.noise.repeat_mape
    return rows


def named_supernet(name: str) -> Supernet:
    """The supernet of a trained run, of a torchvision network, or of a recipe's network."""
    if Path(name).is_dir():
        return OpenRun(Path(name), Console(as_json=False)).supernet
    if name in ("mobilenet_v2", "resnet50"):
        return torchvision_supernet(name)
    recipe = Recipe.load(name)
    return export(recipe_network(recipe, recipe_data(recipe)).eval())


def torchvision_supernet(name: str, bits: Bits | None = None) -> Supernet:
    """A torchvision network with random weights, its widths gated, and quantized where bits are given."""
    torch.manual_seed(0)
    module = build(f"torchvision/{name}", n_classes=1000, input_shape=(3, 224, 224)).eval()
    levels = ("channel", "bit") if bits else ("channel",)
    return export(nest(module, torch.zeros(1, 3, 224, 224), levels, keep={"channel": 0.25}, bits=bits))


def tell(progress: Progress) -> None:
    """Say how far measuring is."""
    print(progress.stage, progress.done, progress.total, round(progress.remaining_s or 0), "s left", file=sys.stderr)


if __name__ == "__main__":
    main()
