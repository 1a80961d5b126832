"""`profile`: measure a plan's subnets on a device and write down all that was seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnx

from fn3hw.errors import InputError
from fn3hw.profiler import statistics
from fn3hw.profiler.device import DEFAULT_RUNTIME, Device, Runtime, Session, connect
from fn3hw.profiler.journal import Journal
from fn3hw.profiler.kernels import Kernel, owners, quiet_times
from fn3hw.profiler.measuring import COUNTED, EMULATED, Candidate, Effort, Round, measure_rounds
from fn3hw.profiler.plan import holdout as plan_holdout
from fn3hw.profiler.plan import plan as plan_subnets
from fn3hw.profiler.record import Measurement, Network, Profile, Reference, RoundRecord
from fn3hw.profiler.sweep import Trial, sweep
from fn3hw.profiler.verdict import judge, noise
from fn3hw.space.subnet import SearchSpace, Subnet

_SWEEP = "sweep"
_PERCENTILES = (0.1, 0.5, 0.9, 0.99)
SWEEP_STEPS = 8
"""About how many settings a sweep tries; for the time that is left."""


class Sliceable(Protocol):
    """What is needed of a supernet; `fn3hw.deploy.Supernet` is one."""

    @property
    def space(self) -> SearchSpace:
        """The search space."""

    @property
    def architecture(self) -> str:
        """What identifies the network, but for its weights' values."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""

    def deployed(self, subnet: Subnet) -> onnx.ModelProto:
        """The subnet as a file of its own, as it runs on a device."""

    def blockwise_layers(self) -> Sequence[str]:
        """Linear layers that may compute on integers in blocks; what is faster is up to the device."""

    def with_blockwise(self, layers: Iterable[str]) -> Sliceable:
        """The network with these layers on blocks."""

    def units(self) -> Mapping[str, Sequence[str]]:
        """Per node the gates that decide its shape or existence."""

    def parameters(self) -> Sequence[Any]:
        """How the bytes of each initializer follow from the counts."""


Stage = Literal["sweep", "details", "rounds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a profile is.

    Args:
        stage: ``"sweep"``, ``"details"`` (memory) or ``"rounds"``.
        done: steps done.
        total: steps in all.
        elapsed_s: seconds since the start of this run.
        remaining_s: seconds left as estimated from the steps of this run, None before the first one.
    """

    stage: Stage
    done: int
    total: int
    elapsed_s: float
    remaining_s: float | None


def profile(
    net: Any,
    device: str | Session = "local",
    budget_subnets: int = 20,
    *,
    holdout: int = 0,
    rounds: int | None = None,
    holdout_rounds: int | None = None,
    seed: int = 0,
    subnets: Sequence[Subnet] | None = None,
    effort: Effort | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    fastest: bool = False,
    origin: Profile | None = None,
    name: str = "network",
    progress: Callable[[Progress], None] | None = None,
    journal: Path | str | None = None,
) -> Profile:
    """Measure subnets of a network on a device.

    Args:
        net: a supernet (`fn3hw.deploy.Supernet`) or a nested module, which is exported first.
        device: ``"local"``, the name or the command of a device, or a session with one.
        budget_subnets: how many subnets to measure for fitting, the full and the smallest among them.
        holdout: how many uniformly random subnets to measure besides, to test a cost model on.
        rounds: fresh processes per subnet; instead of ``effort.rounds``.
        holdout_rounds: the same for the held-out subnets; more of them judge a cost model the more sharply.
        seed: of the plan, the order, and the inputs.
        subnets: measure these instead of a plan.
        effort: how much measuring is enough; by default `Effort`, and less on an emulated device.
        runtime: how ONNX Runtime is used. A device that counts instructions does so where one thread does all the work.
        fastest: first find the settings that run the full network fastest, from ``runtime`` on.
        origin: another device's profile of the network; the cost model starts from there, and 10 subnets may do.
        name: of the network, for people.
        progress: called after each step.
        journal: file that keeps what was measured; where it exists, measuring goes on from there. The caller deletes
            it when the profile is stored.

    Raises:
        InputError: fewer than two subnets are asked for, an option is out of range, no device has the name, or an
            emulated one is asked for its fastest settings.
        ProfileError: the journal is of another device, network or settings, or the origin of another network.
        DeviceError: the device cannot be reached or used; what was measured is in the journal.
    """
    network = sliceable(net)
    if origin is not None:
        origin.check_network(network.architecture)
    fit = list(subnets) if subnets is not None else plan_subnets(network.space, budget_subnets, seed=seed)
    tests = plan_holdout(network.space, holdout, seed=seed, exclude=fit)
    session = device if isinstance(device, Session) else connect(device)
    try:
        if fastest and session.device.key.get("emulated"):
            raise InputError(
                "How fast an emulated device is depends on the emulator: there are no fastest settings to find.",
                hint="Leave out --sweep, or sweep on a real device.",
            )
        if session.device.key.get("counts_instructions") and runtime.clock == "cpu":
            runtime = replace(runtime, count_instructions=True)
        if effort is None:
            usual = EMULATED if session.device.key.get("emulated") else Effort()
            effort = COUNTED if runtime.count_instructions else usual
        if rounds is not None:
            effort = replace(effort, rounds=rounds)
        work = _Work(network, session, effort, runtime, fastest, seed, journal, progress)
        work.run(fit, tests, holdout_rounds)
        return _profile(work, fit, tests, name, origin)
    finally:
        if session is not device:
            session.close()


def sliceable(net: Any) -> Sliceable:
    """A supernet as it is; a nested module exported."""
    if not hasattr(net, "deployed"):
        from fn3hw.deploy import export  # torch is needed for this alone

        net = export(net)
    network: Sliceable = net
    return network


class _Work:
    """Measures what the journal does not have yet."""

    def __init__(
        self,
        network: Sliceable,
        session: Session,
        effort: Effort,
        runtime: Runtime,
        fastest: bool,
        seed: int,
        journal: Path | str | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.network, self.session, self.effort, self.runtime, self.seed = network, session, effort, runtime, seed
        self.device: Device = session.device
        self.reference = network.space.full()
        settings = {"effort": effort.to_json(), "runtime": runtime.to_json(), "clock": runtime.clock, "seed": seed}
        self.settings: dict[str, Any] = settings
        self.fastest = fastest
        asked = {**settings, "fastest": True} if fastest else settings
        belongs_to = {"device": self.device.key, "network": network.architecture, "settings": asked}
        self.journal = Journal(journal, belongs_to)
        self._progress = progress
        self._start = time.monotonic()
        self._steps = 0

    def run(self, fit: Sequence[Subnet], tests: Sequence[Subnet] = (), test_rounds: int | None = None) -> None:
        """Measure subnets to fit on, and others to test on with rounds of their own."""
        if self.fastest:
            self._choose_runtime()
        self._choose_blockwise()
        candidates = [self._candidate(s) for s in fit] + [self._candidate(s, test_rounds) for s in tests]
        ids = {candidate.subnet for candidate in candidates}
        have = [one for one in self.journal.rounds if one.subnet in ids]
        total = sum(candidate.planned(self.effort) + 1 for candidate in candidates)
        done = len(have) + len(ids & self.journal.details.keys())
        for one in measure_rounds(
            self.session, self.model(self.reference), candidates,
            effort=self.effort, runtime=self.runtime, seed=self.seed, done=self.journal.rounds,
            kernels=self.runtime.clock != "instructions",  # they have times, which would only mislead there
        ):  # fmt: skip
            self.journal.add_round(one)
            done += 1
            # Rounds that disagree get further ones, nobody knows how many.
            total = max(total, done + len(ids - self.journal.details.keys()))
            self._tell("rounds", done, total)
        for subnet in (*fit, *tests):
            if subnet.id not in self.journal.details:
                self.journal.add_details(subnet.id, self._details(subnet))
                done += 1
                self._tell("details", done, max(total, done))

    def _choose_runtime(self) -> None:
        """How ONNX Runtime runs the full network fastest."""
        if _SWEEP not in self.journal.details:
            tried: list[Trial] = []

            def tell(trial: Trial) -> None:
                tried.append(trial)
                self._tell("sweep", len(tried), max(len(tried), SWEEP_STEPS))

            best, trials = sweep(
                self.session, self.model(self.reference),
                start=self.runtime, effort=self.effort, seed=self.seed, on_trial=tell,
            )  # fmt: skip
            tells = {"runtime": best.to_json(), "trials": [trial.to_json() for trial in trials]}
            self.journal.add_details(_SWEEP, tells)
        found = self.journal.details[_SWEEP]
        self.runtime = Runtime.from_json(found["runtime"])
        self.settings |= {"runtime": found["runtime"], "clock": self.runtime.clock, "sweep": found["trials"]}

    def _choose_blockwise(self) -> None:
        """Which linear layers this device computes faster on blocks: each alone, against none."""
        space = self.network.space
        bits = {gate.name: (gate.min_kept + gate.size) // 2 for gate in space if gate.level == "bit"}
        subnet = space.from_counts(bits)  # the rest is whole
        ratios: dict[str, tuple[float, float]] = {}
        if layers := self.network.blockwise_layers():
            files = {f"blockwise {layer}": self.network.with_blockwise([layer]) for layer in layers}
            candidates = [
                Candidate(subnet=key, model=lambda n=n: _file(n, subnet))  # type: ignore[misc]
                for key, n in files.items()
            ]
            for one in measure_rounds(
                self.session, _file(self.network, subnet), candidates,
                effort=self.effort, runtime=self.runtime, seed=self.seed, done=self.journal.rounds,
            ):  # fmt: skip
                self.journal.add_round(one)
            for layer, key in zip(layers, files, strict=True):
                samples = [one.samples for one in self.journal.rounds if one.subnet == key]
                ratios[layer] = statistics.interval(samples, seed=self.seed)
            self.network = self.network.with_blockwise(layer for layer in layers if ratios[layer][1] < 1)
        self.settings = {**self.settings, "blockwise": ratios}

    def _candidate(self, subnet: Subnet, rounds: int | None = None) -> Candidate:
        return Candidate(subnet=subnet.id, model=lambda: self.model(subnet), rounds=rounds)

    def model(self, subnet: Subnet) -> bytes:
        return _file(self.network, subnet)

    def _details(self, subnet: Subnet) -> dict[str, Any]:
        """Which node each kernel comes from, and memory, from processes of its own."""
        sliced = self.network.deployed(subnet)
        model = sliced.SerializeToString(deterministic=True)
        timed = next((one.kernels for one in self.journal.rounds if one.subnet == subnet.id and one.kernels), ())
        kernels = [kernel[:3] for kernel in timed]
        memory = self.session.peak_memory(model, runtime=self.runtime, seed=self.seed)
        without = self.session.peak_memory(model, runtime=self.runtime, arena=False, seed=self.seed)
        kept = ("peak_mib", "runtime_mib", "increment_mib", "load_ms", "first_run_ms")
        return {
            "owners": [[*kernel, owner] for kernel, owner in zip(kernels, owners(kernels, sliced), strict=True)],
            "size_bytes": len(model),
            "peak_mib_no_arena": without["peak_mib"],
            **{key: memory[key] for key in kept},
        }

    def ms(self, ns: float) -> float | None:
        """Nanoseconds as a latency; an emulated device has none."""
        return None if self.device.key.get("emulated") else float(ns) / 1e6

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        self._steps += 1
        if self._progress is not None:
            elapsed = time.monotonic() - self._start
            left = elapsed / self._steps * (total - done)
            self._progress(Progress(stage=stage, done=done, total=total, elapsed_s=elapsed, remaining_s=left))


def _file(network: Sliceable, subnet: Subnet) -> bytes:
    data: bytes = network.deployed(subnet).SerializeToString(deterministic=True)
    return data


def _profile(work: _Work, fit: Sequence[Subnet], tests: Sequence[Subnet], name: str, origin: Profile | None) -> Profile:
    wanted = {subnet.id for subnet in (*fit, *tests)}
    rounds = [r for r in work.journal.rounds if r.subnet in wanted]
    reference_ns = float(np.median([one.reference_median_ns for one in rounds]))
    own = {subnet: [one for one in rounds if one.subnet == subnet] for subnet in wanted}
    known = statistics.sensitivity([[one.samples for one in some] for some in own.values()])
    kernels = quiet_times(rounds, known.quiet)
    roles: list[tuple[Subnet, Literal["fit", "holdout"]]] = [(one, "fit") for one in fit]
    roles += [(one, "holdout") for one in tests]
    measurements = [
        _measurement(work, subnet, role, own[subnet.id], reference_ns, known, kernels.get(subnet.id, {}))
        for subnet, role in roles
    ]
    seen = noise(measurements, known)
    verdict, reasons, advice = judge(seen, measurements, work.device.key)
    return Profile(
        schema_name="fn3hw.profile/1",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=work.device.command,
        device=work.device.key,
        state=work.device.state,
        settings=work.settings,
        network=_network(work.network, name),
        reference=_reference(work, rounds, reference_ns),
        sensitivity=known,
        measurements=tuple(measurements),
        noise=seen,
        verdict=verdict,
        reasons=reasons,
        advice=advice,
        origin=origin,
    )


def _network(network: Sliceable, name: str) -> Network:
    plain = [asdict(p) if is_dataclass(p) and not isinstance(p, type) else dict(p) for p in network.parameters()]
    parameters = json.loads(json.dumps(plain))
    return Network(
        digest=network.architecture,
        name=name,
        input_shape=network.input_shape,
        gates=network.space.to_json(),
        units={node: tuple(gates) for node, gates in network.units().items()},
        parameters=parameters,
    )


def _reference(work: _Work, rounds: Sequence[Round], reference_ns: float) -> Reference:
    medians = [one.reference_median_ns for one in rounds]
    p10, p90, p99 = np.quantile(np.concatenate([one.samples[0] for one in rounds]), [0.1, 0.9, 0.99])
    return Reference(
        subnet=work.reference.id,
        latency_ms=work.ms(reference_ns),
        latency_p10_ms=work.ms(p10),
        latency_p90_ms=work.ms(p90),
        latency_p99_ms=work.ms(p99),
        instructions=reference_ns if work.runtime.clock == "instructions" else None,
        drift=max(medians) / min(medians),
        n_rounds=len(rounds),
    )


def _measurement(
    work: _Work,
    subnet: Subnet,
    role: Literal["fit", "holdout"],
    rounds: Sequence[Round],
    reference_ns: float,
    known: statistics.Sensitivity,
    kernels: Mapping[Kernel, float],
) -> Measurement:
    own = sorted(rounds, key=lambda one: one.number)
    samples = [one.samples for one in own]
    ratio = statistics.ratio(samples, known)
    low, high = statistics.interval(samples, known, seed=work.seed)
    p10, p50, p90, p99 = ratio * reference_ns * statistics.about_the_median([c for _, c in samples], _PERCENTILES)
    details = dict(work.journal.details[subnet.id])
    times: dict[str, float] = {}
    operators: dict[str, tuple[str, ...]] = {}
    for *kernel, owner in details.pop("owners"):
        times[owner] = round(times.get(owner, 0.0) + kernels[tuple(kernel)], 3)
        operators[owner] = (*operators.get(owner, ()), kernel[1])
    return Measurement(
        subnet=subnet.id,
        counts=subnet.counts,
        role=role,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        latency_ms=work.ms(ratio * reference_ns),
        latency_p10_ms=work.ms(p10),
        latency_p50_ms=work.ms(p50),
        latency_p90_ms=work.ms(p90),
        latency_p99_ms=work.ms(p99),
        rounds=tuple(RoundRecord.of(one.to_json()) for one in own),
        kernels=times,
        operators=operators,
        **details,
    )
