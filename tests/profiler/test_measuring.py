from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fn3hw.errors import InputError
from fn3hw.profiler.device import DEFAULT_RUNTIME, Runtime
from fn3hw.profiler.measuring import Candidate, Effort, Round, faults, measure_rounds

CALM = {"wall_s": 1.0, "cpu_s": 0.99, "steal_s": 0.0}


def raw(scale: float = 1.0, conditions: dict[str, Any] = CALM) -> dict[str, Any]:
    reference, candidate = [1000 + i % 2 for i in range(30)], [int(scale * 1000) + i % 2 for i in range(30)]
    return {
        "reference_ns": reference, "candidate_ns": candidate, "reference_cpu_ns": reference,
        "candidate_cpu_ns": candidate, "batches": [1, 1], "load_ms": 1.0, "conditions": conditions,
    }  # fmt: skip


class Scripted:
    """A session that answers with what a script says; the candidate's file is its name."""

    def __init__(self, disturbed: int = 0) -> None:
        self.order: list[str] = []
        self.disturbed = disturbed

    def measure(self, *, reference: bytes, candidate: bytes, **_: Any) -> dict[str, Any]:
        self.order.append(candidate.decode())
        self.disturbed -= 1
        return raw(conditions=CALM | {"steal_s": 0.5} if self.disturbed >= 0 else CALM)


def candidates(n: int = 8) -> list[Candidate]:
    return [Candidate(subnet=str(i), model=lambda i=i: str(i).encode()) for i in range(n)]  # type: ignore[misc]


def measured(session: Scripted, effort: Effort, done: Sequence[Round] = ()) -> list[Round]:
    work = measure_rounds(
        session, b"reference", candidates(), effort=effort, runtime=DEFAULT_RUNTIME, seed=0, done=done  # type: ignore[arg-type]
    )  # fmt: skip
    return list(work)


def test_every_round_has_every_candidate_in_an_order_of_its_own() -> None:
    session = Scripted()
    found = measured(session, Effort(rounds=3))
    orders = [session.order[8 * i : 8 * i + 8] for i in range(3)]
    assert all(sorted(order) == list("01234567") for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert len({(one.subnet, one.number) for one in found}) == 24


def test_a_candidate_of_more_rounds_has_them_spread_over_all_turns() -> None:
    session = Scripted()
    more = [replace(one, rounds=7 if one.subnet in "06" else None) for one in candidates()]
    found = list(
        measure_rounds(session, b"", more, effort=Effort(rounds=3), runtime=DEFAULT_RUNTIME, seed=0)  # type: ignore[arg-type]
    )
    numbers = {name: sorted(one.number for one in found if one.subnet == name) for name in "0126"}
    assert numbers == {"0": [*range(7)], "1": [0, 1, 2], "2": [0, 1, 2], "6": [*range(7)]}
    turns = session.order[:12], session.order[12:22], session.order[22:]
    assert [turn.count("0") for turn in turns] == [3, 2, 2]
    assert all(set(turn) == set("01234567") for turn in turns)


def test_what_is_done_is_not_measured_again() -> None:
    found = measured(Scripted(), Effort(rounds=2))
    again = Scripted()
    rest = measured(again, Effort(rounds=2), done=found[:11])
    assert [(one.subnet, one.number) for one in rest] == [(one.subnet, one.number) for one in found[11:]]


def test_a_disturbed_round_is_measured_again_but_not_for_ever() -> None:
    session = Scripted(disturbed=1)
    found = measured(session, Effort(rounds=1, retries=2))
    assert (found[0].rejected, found[0].faults) == (1, ())
    busy = Scripted(disturbed=1000)
    found = measured(busy, Effort(rounds=2, retries=2))
    assert all(one.faults for one in found)
    assert len(busy.order) <= 16 + 16 // 4


def test_rounds_that_disagree_get_further_ones_within_bounds() -> None:
    class Unsteady(Scripted):
        def measure(self, *, reference: bytes, candidate: bytes, **options: Any) -> dict[str, Any]:
            answer = super().measure(reference=reference, candidate=candidate, **options)
            return raw(1 + 0.1 * len(self.order)) if candidate == b"3" else answer

    found = measured(Unsteady(), Effort(rounds=3, extra_rounds=2))
    per_subnet = {str(i): sum(one.subnet == str(i) for one in found) for i in range(8)}
    assert per_subnet == {str(i): 5 if i == 3 else 3 for i in range(8)}
    assert measured(Unsteady(), Effort(rounds=3, extra_rounds=2), done=found) == []


def test_candidates_that_were_only_seen_in_loud_moments_get_further_rounds() -> None:
    asked = list[float | None]()

    class Neighbour(Scripted):
        def measure(self, *, reference: bytes, candidate: bytes, **options: Any) -> dict[str, Any]:
            asked.append(options["plan"]["quiet_ns"])
            answer = super().measure(reference=reference, candidate=candidate)
            loud = candidate == b"3" and self.order.count("3") <= 2
            factor = 1.4 if loud else 1.0
            return answer | {"reference_cpu_ns": [int(factor * ns) for ns in answer["reference_cpu_ns"]]}

    found = measured(Neighbour(), Effort(rounds=2, extra_rounds=3))
    per_subnet = {str(i): sum(one.subnet == str(i) for one in found) for i in range(8)}
    assert per_subnet == {str(i): 4 if i == 3 else 2 for i in range(8)}
    assert asked[:5] == [None] * 5 and asked[-1] == pytest.approx(1100, rel=0.01)


def test_quiet_moments_are_waited_for_half_of_the_time_at_most() -> None:
    waits = list[float]()

    class Busy(Scripted):
        def measure(self, *, reference: bytes, candidate: bytes, **options: Any) -> dict[str, Any]:
            answer = super().measure(reference=reference, candidate=candidate)
            waits.append(options["plan"]["quiet_wait_s"])
            return answer | {"conditions": CALM | {"wall_s": 1.0, "cpu_s": 1.0, "date_s": 1.0, "slept_s": waits[-1]}}

    measured(Busy(), Effort(rounds=10, quiet_wait_s=2.0))
    assert 0.4 * len(waits) <= sum(waits) <= 0.5 * len(waits) + 2.0
    assert set(waits) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        ({"cpu_s": 0.05}, "preempted"),
        ({"steal_s": 0.2}, "steal"),
        ({"throttle_count": 2}, "throttled"),
        ({"throttled_flags": [0, 0x4]}, "throttled"),
        ({"frequency_mhz": [2400.0, 1500.0]}, "frequency"),
        ({"date_s": -3599.0}, "clock"),
    ],
)
def test_each_disturbance_is_named(conditions: dict[str, Any], says: str) -> None:
    calm = round_of(raw())
    assert faults(calm, []) == ()
    found = faults(replace(calm, conditions=CALM | conditions), [])
    assert [fault.split(":")[0] for fault in found] == [says]


def test_drift_and_slowness_of_the_reference_are_named() -> None:
    drifting = round_of(raw() | {"reference_cpu_ns": [1000] * 15 + [1300] * 15})
    assert faults(drifting, [])[0].startswith("drift")
    assert faults(round_of(raw()), [500.0] * 6)[0].startswith("slow")


def test_the_clock_is_the_threads_own_only_where_one_thread_does_the_work() -> None:
    assert DEFAULT_RUNTIME.clock == "cpu"
    assert Runtime(intra_op_threads=2).clock == "wall"
    assert Runtime(providers=("CUDAExecutionProvider",)).clock == "wall"
    one = round_of(raw() | {"candidate_cpu_ns": [7] * 30})
    assert one.samples[1] == (7,) * 30
    assert replace(one, clock="wall").samples[1][0] == 1000


def test_counted_instructions_are_the_samples_and_nothing_disturbs_them() -> None:
    counts = {"reference_instructions": [9, 9, 9], "candidate_instructions": [5, 5, 5]}
    one = replace(round_of(raw(conditions=CALM | {"steal_s": 0.5}) | counts), clock="instructions")
    assert one.samples == ((9, 9, 9), (5, 5, 5))
    assert faults(one, [1.0] * 6) == () and faults(replace(one, clock="cpu"), []) != ()
    assert Runtime(count_instructions=True).clock == "instructions"


@pytest.mark.parametrize("counts", [{}, {"reference_instructions": [9], "candidate_instructions": [5]}])
def test_a_round_reads_back(counts: dict[str, Any]) -> None:
    one = round_of(raw() | counts)
    assert Round.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"warmup_s": -1}, {"max_s": float("nan")}, {"seconds": float("inf")}])
def test_effort_out_of_range_is_bad_input(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Effort(**wrong)


def round_of(answer: dict[str, Any]) -> Round:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in answer.items()}
    return Round(subnet="1", number=0, clock="cpu", **values)
