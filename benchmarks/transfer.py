"""Cost models that start from another profile, with 10 and with 30 measurements, beside ones that start from nothing.

Two threads from one thread (MobileNetV2 at 224×224, its widths gated; the profile of `cost_model.py mobilenet_v2`), and
integers of 8 bits from fp32 (the same network with one quantizer over all layers). Tested on 60 random subnets.
Usage: python benchmarks/transfer.py [threads | integers]; profiles are kept in runs/cost and gone on with
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from cost_model import FOLDER, TEST, designs, measured_on, restricted, tell, torchvision_supernet
from report import report

from fn3hw.cost import fit_cost
from fn3hw.deploy import Supernet
from fn3hw.profiler import DEFAULT_RUNTIME, Profile, Runtime, plan, profile
from fn3hw.profiler import holdout as random_subnets
from fn3hw.space import Bits
from fn3hw.space.quantizer import Schedule
from fn3hw.space.subnet import Subnet

SIZES = (10, 30)
ROUNDS = 3
"""Rounds per subnet; the profile of `cost_model.py` has more."""
ORIGIN = 40
"""Subnets that the profile to start from was fitted on."""


def main() -> None:
    wanted = sys.argv[1:] or list(KINDS)
    report("transfer", {"tested_on": TEST, **{name: KINDS[name]() for name in wanted}})


def threads() -> dict[str, Any]:
    """Two threads from one."""
    supernet = torchvision_supernet("mobilenet_v2")
    origin = restricted(Profile.read(FOLDER / "mobilenet_v2.json"), designs(supernet.space)[ORIGIN])
    first, second = nested_plans(supernet)
    tests = random_subnets(supernet.space, TEST, exclude=second)
    target = measured(
        supernet, "mobilenet_v2-two-threads", second, tests, runtime=Runtime(**{**_USUAL, "intra_op_threads": 2})
    )
    return errors(target, origin, (first, second))


def integers() -> dict[str, Any]:
    """Integers from fp32."""
    bits = Bits(schedule=Schedule(levels=(64, 127), full_precision=True), groups=1)
    supernet = torchvision_supernet("mobilenet_v2", bits)
    gate = next(gate for gate in supernet.space if gate.level == "bit")

    def at(steps: int, subnets: Sequence[Subnet]) -> list[Subnet]:
        return list(dict.fromkeys(supernet.space.from_counts({**one.counts, gate.name: steps}) for one in subnets))

    first, second = (at(gate.size - 1, chosen) for chosen in nested_plans(supernet))
    tests = at(gate.size - 1, random_subnets(supernet.space, TEST, exclude=second))
    before = at(gate.size, plan(supernet.space, ORIGIN))
    origin = measured(supernet, "mobilenet_v2-fp32", before, ())
    target = measured(supernet, "mobilenet_v2-int8", second, tests)
    return errors(target, origin, (first, second))


def nested_plans(supernet: Supernet) -> tuple[list[Subnet], list[Subnet]]:
    """Plans of 10 and of 30 subnets, the first within the second."""
    first = plan(supernet.space, SIZES[0])
    return first, list(dict.fromkeys([*first, *plan(supernet.space, SIZES[1] - SIZES[0] + 2, seed=1)]))[: SIZES[1]]


def measured(
    supernet: Supernet, name: str, fit: Sequence[Subnet], tests: Sequence[Subnet], runtime: Runtime = DEFAULT_RUNTIME
) -> Profile:
    """A profile from its file, or measured; the tests are held out."""
    path = FOLDER / f"{name}.json"
    if path.is_file():
        return Profile.read(path)
    found = profile(
        supernet,
        "local",
        subnets=[*fit, *(one for one in tests if one not in fit)],
        rounds=ROUNDS,
        runtime=runtime,
        name=name,
        journal=path.with_suffix(".journal"),
        progress=tell,
    )
    held_out = {one.id for one in tests} - {one.id for one in fit}
    rows = tuple(
        m.model_copy(update={"role": "holdout" if m.subnet in held_out else "fit"}) for m in found.measurements
    )
    found = found.model_copy(update={"measurements": rows})
    found.write(path)
    return found


def errors(target: Profile, origin: Profile, plans: Sequence[Sequence[Subnet]]) -> dict[str, Any]:
    """Accuracy on the held-out subnets, from nothing and from the other profile."""
    found: dict[str, Any] = {
        "measured_on": measured_on(target),
        "repeat_mape": target.noise.repeat_mape,
        "verdict": target.verdict,
    }
    for chosen in plans:
        few = restricted(target, chosen)
        found[f"{len(chosen)} measurements"] = {
            "from nothing": fit_cost(few).holdout.to_json(),
            "from the other profile": fit_cost(few.model_copy(update={"origin": origin})).holdout.to_json(),
        }
    return found


_USUAL = DEFAULT_RUNTIME.to_json()
KINDS: dict[str, Callable[[], dict[str, Any]]] = {"threads": threads, "integers": integers}


if __name__ == "__main__":
    main()
