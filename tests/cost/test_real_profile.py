from __future__ import annotations

import pytest

from fn3hw.cost import fit_cost
from fn3hw.cost.validation import comparators
from fn3hw.profiler import Profile
from tests.cost.synthetic import SPACE, Machine, Measurement, measure, subnets


def as_document(fake) -> dict:
    round_ = {"number": 0, "reference_ns": [1], "candidate_ns": [1]}

    def row(m: Measurement) -> dict:
        return {
            **{k: getattr(m, k) for k in ("subnet", "role", "size_bytes", "ratio", "kernels", "peak_mib")},
            "counts": SPACE.parse(m.subnet).counts,
            **dict.fromkeys(("ratio_low", "ratio_high", "latency_ms", "latency_p10_ms"), m.ratio),
            **dict.fromkeys(("latency_p50_ms", "latency_p90_ms"), m.ratio),
            **dict.fromkeys(("peak_mib_no_arena", "runtime_mib", "increment_mib", "load_ms", "first_run_ms"), 1.0),
            "rounds": [round_],
        }

    return {"measurements": [row(m) for m in fake.measurements], "space": SPACE.to_json()}


@pytest.fixture
def profile() -> Profile:
    """A profile as it is read from a file: pydantic's models, lists for tuples."""
    fake = measure(Machine(), subnets(20, 0), subnets(10, 1)[1:], noise=0.003)
    document = as_document(fake)
    kinds = {name: field.annotation for name, field in Profile.model_fields.items()}
    measurement = kinds["measurements"].__args__[0]
    network = kinds["network"].model_construct(
        units=fake.network.units,
        gates=document["space"],
        parameters=[{**p, "gates": list(p["gates"]), "branches": [list(b) for b in p["branches"]]}
                    for p in fake.network.parameters],
    )  # fmt: skip
    return Profile.model_construct(
        measurements=tuple(measurement.model_construct(**row) for row in document["measurements"]),
        network=network,
        reference=kinds["reference"].model_construct(latency_ms=1.0),
        noise=kinds["noise"].model_construct(repeat_mape=0.003),
    )


def test_a_profile_of_the_profiler_is_fitted(profile: Profile):
    cost = fit_cost(profile)
    assert cost.holdout.n == 9
    assert cost.holdout.mape < 0.02
    assert set(comparators(profile)) == {"gradient boosting", "random forest", "look-up table"}
