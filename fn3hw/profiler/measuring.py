"""The measuring protocol: rounds in shuffled order, each candidate against the reference, disturbed rounds again.

A round times every candidate once, each in a fresh process, in an order of its own, in alternation with one fixed
reference subnet. What is kept is the *ratio* of the two: what slows the machine down slows both. The ratio of a
candidate is taken from the fastest samples of its rounds (see `fn3hw.profiler.statistics`). Where one thread does all
the work, samples are taken on that thread's own clock (see `Runtime.clock`). An emulated device may count instructions
instead: these repeat, so that one round of few samples is enough (`COUNTED`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

import numpy as np

from fn3hw.errors import InputError
from fn3hw.profiler import statistics
from fn3hw.profiler.device import Runtime, Session

ENOUGH_CPU: Final = {"cpu": 0.1, "wall": 0.9}
"""Share of the time that the measuring process has to get. On its own clock it does not see what others take, down to
the point where they empty the caches between any two samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much measuring is enough.

    A round ends when the fastest samples of both models agree, which takes longer where something disturbs it. Many
    short rounds are worth more than few long ones: a neighbour that is busy spoils a second, not all of them.

    Args:
        rounds: fresh processes per candidate.
        extra_rounds: further ones for a candidate whose rounds disagree, at most; all candidates together get at most
            a quarter as many extra rounds as planned ones.
        agreement: mean relative difference between two rounds above which they disagree.
        retries: how often a disturbed round of one candidate is measured again.
        warmup_runs: runs of each model before the first sample, at least.
        warmup_s: seconds of warming up, at least.
        min_samples: samples per round and model, at least.
        seconds: seconds per round and model, at least.
        settled: how far, as a fraction, the third fastest sample may be above the fastest for a round to end.
        max_samples: samples per round, at most.
        max_s: seconds per round and model, at most.
        quiet_wait_s: seconds that a round waits for a quiet moment, at most: one in which the reference is about as
            fast as it was in the fastest rounds so far. All rounds together wait for half of the time that they take.
        min_sample_us: shorter runs are batched until a sample takes this long.
        kernel_runs: runs that kernels are timed over in every round, at least; 0 leaves them out.
        kernel_s: seconds that kernels are timed for in every round, at least.
        max_kernel_runs: runs that kernels are timed over, at most.

    Raises:
        InputError: a value is out of range.
    """

    rounds: int = 6
    extra_rounds: int = 3
    agreement: float = 0.03
    retries: int = 2
    warmup_runs: int = 2
    warmup_s: float = 0.15
    min_samples: int = 10
    seconds: float = 0.15
    settled: float = 0.01
    max_samples: int = 2000
    max_s: float = 0.5
    quiet_wait_s: float = 2.0
    min_sample_us: float = 100.0
    kernel_runs: int = 4
    kernel_s: float = 0.25
    max_kernel_runs: int = 100

    def __post_init__(self) -> None:
        wrong = [name for name, value in asdict(self).items() if not 0 <= value < float("inf")]
        wrong += [name for name in ("rounds", "min_samples", "max_samples") if getattr(self, name) < 1]
        if wrong:
            raise InputError(
                f"Out of range: {', '.join(f'{name}={getattr(self, name)}' for name in dict.fromkeys(wrong))}."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Effort:
        """From `to_json`, also of an earlier version: settings that there are no more are left out."""
        known = (one.name for one in fields(cls))
        return cls(**{name: document[name] for name in known if name in document})


_KNOWN: Final = 5
"""Rounds after which a quiet moment can be told from others."""
_WAITING: Final = 0.5
"""Seconds of waiting for quiet moments per second of samples, at most."""
_FASTEST: Final = 0.05
"""The quantile of all rounds that stands for the fastest ones."""

COUNTED: Final = Effort(
    rounds=1, extra_rounds=0, retries=0, warmup_runs=2, warmup_s=0.0, seconds=0.0, min_samples=8,
    max_samples=8, quiet_wait_s=0.0, min_sample_us=0.0, kernel_runs=0,
)  # fmt: skip
"""Enough where instructions are counted; the first samples still hold what Python does once. Kernels have times, but no
counts, which would only mislead."""

EMULATED: Final = Effort(rounds=2, extra_rounds=0, retries=0, quiet_wait_s=0.0)
"""Enough on other emulated devices: a fresh process takes them seconds, and their time is worth little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One candidate timed in one fresh process.

    Args:
        subnet: id of the candidate.
        number: of the round, from 0.
        reference_ns: samples of the reference, wall time, ns per run.
        candidate_ns: samples of the candidate, taken in alternation with those of the reference.
        reference_cpu_ns: the samples of the reference on the thread's own clock.
        candidate_cpu_ns: the samples of the candidate on the thread's own clock.
        clock: the clock that counts, ``"cpu"``, ``"wall"`` or ``"instructions"``.
        batches: runs per sample of the reference and of the candidate.
        load_ms: time to open the candidate, with ONNX Runtime warm.
        conditions: what the device's counters saw meanwhile.
        faults: what disturbed it; empty where nothing did.
        rejected: disturbed attempts of this round before this one.
        at_s: when it ended, seconds since 1970 on the machine that asked.
        reference_instructions: instructions per run of the reference, where they are counted.
        candidate_instructions: instructions per run of the candidate, where they are counted.
        kernels: ``(name, operator, provider, microseconds)`` of the candidate's kernels in order of execution, where
            they were timed.
        kernels_reference_ns: what the reference took meanwhile, undisturbed, on the clock that counts.
    """

    subnet: str
    number: int
    reference_ns: tuple[int, ...]
    candidate_ns: tuple[int, ...]
    reference_cpu_ns: tuple[int, ...]
    candidate_cpu_ns: tuple[int, ...]
    clock: str
    batches: tuple[int, ...]
    load_ms: float
    conditions: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    rejected: int = 0
    at_s: float | None = None
    reference_instructions: tuple[int, ...] = ()
    candidate_instructions: tuple[int, ...] = ()
    kernels: tuple[tuple[str, str, str, float], ...] = ()
    kernels_reference_ns: float | None = None

    @property
    def samples(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Samples of the reference and of the candidate on the clock that counts."""
        if self.clock == "instructions":
            return self.reference_instructions, self.candidate_instructions
        if self.clock == "cpu":
            return self.reference_cpu_ns, self.candidate_cpu_ns
        return self.reference_ns, self.candidate_ns

    @property
    def reference_median_ns(self) -> float:
        """Median sample of the reference."""
        return float(np.median(self.samples[0]))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return asdict(self) | {"conditions": dict(self.conditions)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Round:
        """Read `to_json` back."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
        }
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A subnet to measure.

    Args:
        subnet: its id.
        model: makes its ONNX file; called whenever the file is needed, so that not all of them are held in memory.
        rounds: how many it gets; by default as many as `Effort.rounds`.
    """

    subnet: str
    model: Callable[[], bytes]
    rounds: int | None = None

    def planned(self, effort: Effort) -> int:
        """Rounds that it gets, besides those after rounds that disagree."""
        return effort.rounds if self.rounds is None else self.rounds


def measure_rounds(
    session: Session,
    reference: bytes,
    candidates: Sequence[Candidate],
    *,
    effort: Effort,
    runtime: Runtime,
    seed: int,
    done: Iterable[Round] = (),
    kernels: bool = False,
) -> Iterator[Round]:
    """Measure what is missing, round by round, then candidates whose rounds disagree; yields rounds as they finish.

    Args:
        session: the device.
        reference: ONNX file of the reference subnet.
        candidates: what to measure.
        effort: how much is enough.
        runtime: how ONNX Runtime is used.
        seed: of the order within rounds and of the inputs.
        done: rounds that were measured earlier.
        kernels: whether each round times the candidate's kernels, too.

    Raises:
        DeviceError: the device is lost, or refuses a model.
    """
    effort = effort if kernels else replace(effort, kernel_runs=0)
    wanted = {candidate.subnet for candidate in candidates}
    finished = [one for one in done if one.subnet in wanted]
    have = {(one.subnet, one.number) for one in finished}
    usual = [one.reference_median_ns for one in finished]
    spare = max(3, sum(candidate.planned(effort) for candidate in candidates) // 4)
    for turn in range(effort.rounds):
        # A candidate of more rounds has several in each turn, so that all candidates are spread over the same time.
        due = [(one, number) for one in candidates for number in range(turn, one.planned(effort), effort.rounds)]
        order = np.random.default_rng([seed, turn, 3]).permutation(len(due))
        for candidate, number in (due[i] for i in order):
            if (candidate.subnet, number) in have:
                continue
            retries = min(effort.retries, spare)
            plan = plan_of(effort, finished)
            one = _measure_round(session, reference, candidate, number, plan, runtime, seed, usual, retries)
            spare -= one.rejected
            usual.append(one.reference_median_ns)
            finished.append(one)
            yield one
    for candidate, number in _disagreeing(candidates, finished, effort, seed):
        plan = plan_of(effort, finished)
        one = _measure_round(session, reference, candidate, number, plan, runtime, seed, usual, 0)
        finished.append(one)
        yield one


def plan_of(effort: Effort, finished: Sequence[Round]) -> dict[str, Any]:
    """What a device is told about the next round: where a device stays busy, it is not waited for all the time."""
    waited_s, sampled_s = (sum(one.conditions.get(name, 0.0) for one in finished) for name in ("slept_s", "wall_s"))
    patience_s = effort.quiet_wait_s if waited_s <= _WAITING * sampled_s else 0.0
    return effort.to_json() | {"quiet_ns": quiet_ns(finished), "quiet_wait_s": patience_s}


def quiet_ns(finished: Sequence[Round]) -> float | None:
    """What the reference takes at most in a quiet moment; None as long as too little is known."""
    if len(finished) < _KNOWN:
        return None
    times = [statistics.undisturbed(one.samples[0]) for one in finished]
    return statistics.QUIET * float(np.quantile(times, _FASTEST))


def _disagreeing(
    candidates: Sequence[Candidate], finished: Sequence[Round], effort: Effort, seed: int
) -> Iterator[tuple[Candidate, int]]:
    """Candidates that need another round, and its number; ``finished`` grows while this runs."""
    planned = sum(candidate.planned(effort) for candidate in candidates)
    allowed = planned // 4 - (len(finished) - planned)
    limit = quiet_ns(finished)
    for extra in range(effort.extra_rounds):
        known = _sensitivity(candidates, finished)
        order = np.random.default_rng([seed, effort.rounds + extra, 3]).permutation(len(candidates))
        for candidate in (candidates[i] for i in order):
            number = candidate.planned(effort) + extra
            own = [one for one in finished if one.subnet == candidate.subnet]
            disagree = statistics.repeat_error([one.samples for one in own], known) > effort.agreement
            if (disagree or _is_loud(own, limit)) and allowed > 0 and all(one.number != number for one in own):
                allowed -= 1
                yield candidate, number
                limit = quiet_ns(finished)


def _sensitivity(candidates: Sequence[Candidate], finished: Sequence[Round]) -> statistics.Sensitivity:
    rounds: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {one.subnet: [] for one in candidates}
    for one in finished:
        rounds[one.subnet].append(one.samples)
    return statistics.sensitivity(list(rounds.values()))


def _is_loud(own: Sequence[Round], limit: float | None) -> bool:
    """Whether fewer than two of a candidate's rounds were measured in a quiet moment, told by `quiet_ns`."""
    return limit is not None and sum(statistics.undisturbed(one.samples[0]) <= limit for one in own) < 2


def _measure_round(
    session: Session,
    reference: bytes,
    candidate: Candidate,
    number: int,
    plan: Mapping[str, Any],
    runtime: Runtime,
    seed: int,
    usual: Sequence[float],
    retries: int,
) -> Round:
    """Measure until an attempt is undisturbed, or take the least disturbed one."""
    model = candidate.model()
    attempts = []
    for attempt in range(retries + 1):
        raw = session.measure(reference=reference, candidate=model, plan=plan, runtime=runtime, seed=seed)
        one = Round(
            subnet=candidate.subnet,
            number=number,
            reference_ns=tuple(raw["reference_ns"]),
            candidate_ns=tuple(raw["candidate_ns"]),
            reference_cpu_ns=tuple(raw["reference_cpu_ns"]),
            candidate_cpu_ns=tuple(raw["candidate_cpu_ns"]),
            clock=runtime.clock,
            batches=tuple(raw["batches"]),
            load_ms=raw["load_ms"],
            conditions=raw["conditions"],
            rejected=attempt,
            at_s=time.time(),
            reference_instructions=tuple(raw.get("reference_instructions", ())),
            candidate_instructions=tuple(raw.get("candidate_instructions", ())),
            kernels=tuple((str(name), str(op), str(by), float(us)) for name, op, by, us in raw.get("kernels", ())),
            kernels_reference_ns=_undisturbed(raw.get("kernels_reference_ns", ())),
        )
        attempts.append(replace(one, faults=faults(one, usual)))
        if not attempts[-1].faults:
            return attempts[-1]
    best = min(attempts, key=lambda one: (len(one.faults), spread(one.samples[0])))
    return replace(best, rejected=retries)


def _undisturbed(ns: Sequence[int]) -> float | None:
    moved = [one for one in ns if one > 0]  # steal can stop the thread's clock
    return statistics.undisturbed(moved) if moved else None


def faults(one: Round, usual_ns: Sequence[float]) -> tuple[str, ...]:
    """What disturbed a round so much that it should be measured again.

    Args:
        one: the round.
        usual_ns: medians of the reference in earlier rounds.
    """
    if one.clock == "instructions":
        return ()  # what others take of the machine does not change what is counted
    seen, reference = one.conditions, np.asarray(one.samples[0], dtype=float)
    found = []
    wall_s = max(seen.get("wall_s", 0.0), 1e-9)
    if seen.get("cpu_s", wall_s) < ENOUGH_CPU[one.clock] * wall_s:
        found.append(f"preempted: {100 * (1 - seen['cpu_s'] / wall_s):.0f}% of the time went to other programs")
    if seen.get("steal_s", 0.0) > 0.05 * wall_s:
        found.append(f"steal: the hypervisor took {100 * seen['steal_s'] / wall_s:.0f}% of the time")
    if abs(step_s := seen.get("date_s", wall_s) - wall_s) > max(0.5, 0.05 * wall_s):
        found.append(f"clock: the device's clock was moved by {step_s:+.1f} s")
    if seen.get("throttle_count", 0) > 0 or any(flags & 0xF for flags in seen.get("throttled_flags", ())):
        found.append("throttled: the processor lowered its frequency to protect itself")
    if (frequencies := seen.get("frequency_mhz")) and max(frequencies) > 1.1 * min(frequencies):
        found.append(f"frequency: went from {frequencies[0]:.0f} to {frequencies[1]:.0f} MHz")
    third = len(reference) // 3
    if third >= 5 and (drift := _relative(np.median(reference[:third]), np.median(reference[-third:]))) > 0.15:
        found.append(f"drift: the reference changed by {100 * drift:.0f}% within the round")
    if len(usual_ns) >= 5 and (off := float(np.median(reference) / np.median(usual_ns))) > 1.5:
        found.append(f"slow: the reference took {off:.2f} times as long as usual")
    return tuple(found)


def spread(samples: Sequence[int]) -> float:
    """Distance of the quartiles relative to the median."""
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def _relative(a: float, b: float) -> float:
    return float(abs(a - b) / min(a, b))
