"""`profile`: measure a plan's subnets on a device and write down all that was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fn3hw.errors import InputError
from fn3hw.profiler import statistics
from fn3hw.profiler.device import DEFAULT_RUNTIME, Device, Runtime, Session, connect
from fn3hw.profiler.journal import Journal
from fn3hw.profiler.kernels import owners
from fn3hw.profiler.measuring import COUNTED, EMULATED, Candidate, Effort, measure_rounds
from fn3hw.profiler.plan import holdout as plan_holdout
from fn3hw.profiler.plan import plan as plan_subnets
from fn3hw.profiler.ports import Sliceable
from fn3hw.profiler.record import Profile
from fn3hw.profiler.sweep import Trial, sweep
from fn3hw.profiler.writing import Role, Taken, written
from fn3hw.space.subnet import Subnet

_SWEEP = "sweep"
SWEEP_STEPS = 8
"""About how many settings a sweep tries; for the time that is left."""


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
        roles: dict[Subnet, Role] = {**dict.fromkeys(fit, "fit"), **dict.fromkeys(tests, "holdout")}
        return written(work.taken(), roles, name, origin)
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

    def taken(self) -> Taken:
        """All that was measured, also by earlier runs."""
        return Taken(
            device=self.device,
            network=self.network,
            settings=self.settings,
            rounds=self.journal.rounds,
            details=self.journal.details,
        )

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        self._steps += 1
        if self._progress is not None:
            elapsed = time.monotonic() - self._start
            left = elapsed / self._steps * (total - done)
            self._progress(Progress(stage=stage, done=done, total=total, elapsed_s=elapsed, remaining_s=left))


def _file(network: Sliceable, subnet: Subnet) -> bytes:
    data: bytes = network.deployed(subnet).SerializeToString(deterministic=True)
    return data
