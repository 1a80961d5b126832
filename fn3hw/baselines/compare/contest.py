"""Every method plays with every seed, under the same rules."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fn3hw.baselines.compare.desk import Desk, Play
from fn3hw.baselines.methods import Task, find_method, method_names
from fn3hw.errors import InfeasibleBudget, InputError
from fn3hw.searcher.archive import Archive, Evaluation
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.executors import LocalExecutor
from fn3hw.searcher.ports import AccuracyEvaluator, Executor
from fn3hw.space.subnet import Subnet

ARCHIVE = "archive.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for every play.

    Args:
        methods: names of the methods.
        seeds: every method plays once with each.
        budgets: costs to find the most accurate subnet for.
        evaluations: of each play.

    Raises:
        InputError: a list is empty or repeats itself, a budget is not positive, or there are fewer than 2 evaluations.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: tuple[float, ...]
    evaluations: int

    def __post_init__(self) -> None:
        for name, values in (("method", self.methods), ("seed", self.seeds), ("budget", self.budgets)):
            if not values or len(set(values)) < len(values):
                raise InputError(f"A contest needs at least one {name}, and each of them once, not {list(values)}.")
        if not all(np.isfinite(budget) and budget > 0 for budget in self.budgets):
            raise InputError(f"Budgets have to be positive numbers, not {list(self.budgets)}.")
        if self.evaluations < 2:
            raise InputError(f"A contest needs at least 2 evaluations per play, not {self.evaluations}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a contest is.

    Args:
        method: that plays.
        seed: of the play.
        evaluations: of this play so far.
        done: evaluations of all plays so far.
        total: evaluations of all plays.
        seconds_left: estimate.
    """

    method: str
    seed: int
    evaluations: int
    done: int
    total: int
    seconds_left: float


class Contest:
    """Plays of all methods, kept in a folder; a contest that was interrupted goes on.

    Args:
        rules: what is played.
        charge: costs of states.
        evaluator: says how accurate a subnet is.
        folder: keeps the plays, and the archive of accuracies that all contests of this evaluator share.
        executor: runs the evaluations; by default in this process.

    Raises:
        UnknownName: there is no method of a name.
        InputError: a method needs packages that are not installed.
        InfeasibleBudget: no subnet meets a budget.
    """

    def __init__(
        self,
        rules: Rules,
        charge: Charge,
        evaluator: AccuracyEvaluator,
        folder: Path | str,
        *,
        executor: Executor | None = None,
    ) -> None:
        self.rules, self.charge, self.evaluator = rules, charge, evaluator
        self.folder = Path(folder)
        self._executor = executor if executor is not None else LocalExecutor()
        self._methods = {name: find_method(name) for name in rules.methods}
        self.full, self.smallest = (float(cost) for cost in charge.of(np.stack([charge.sizes, charge.bottom])))
        if min(rules.budgets) < self.smallest:
            raise InfeasibleBudget(
                f"No subnet costs {min(rules.budgets):g} or less: the smallest one costs {self.smallest:.4g}.",
                limit="latency_ms",
                best=self.smallest,
                hint="Name budgets above that.",
            )

    def play(self, progress: Callable[[Progress], None] = lambda _: None) -> list[Play]:
        """All plays, method by method within a seed; those that are kept from before are read.

        Raises:
            RunError: another program plays in the folder, or a kept play is damaged.
            InputError: the folder cannot be written, or not even the smallest subnet can be evaluated; finished plays
                are kept.
        """
        self.floor()
        reporter = _Reporter(self.rules, progress)
        with Archive(self.folder / ARCHIVE, self.charge.space, self.evaluator.key) as archive:
            return [self._one(archive, name, seed, reporter) for seed, name in self._order()]

    def floor(self) -> float:
        """Accuracy of the smallest subnet in percent; evaluated where it is not known."""
        with Archive(self.folder / ARCHIVE, self.charge.space, self.evaluator.key) as archive:
            return self._accuracy(archive, self.charge.subnet(self.charge.bottom), self.evaluator)

    def verified(
        self,
        subnets: Sequence[str],
        evaluator: AccuracyEvaluator,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, float]:
        """Accuracy of subnets, by id, on other images than the search saw; kept in the archive, too.

        Raises:
            RunError: another program plays in the folder.
        """
        found = {}
        with Archive(self.folder / ARCHIVE, self.charge.space, evaluator.key) as archive:
            for done, name in enumerate(subnets, 1):
                found[name] = self._accuracy(archive, self.charge.space.parse(name), evaluator)
                progress(done, len(subnets))
        return found

    def path(self, method: str, seed: int) -> Path:
        """The file of a play: its name says all that the play depends on."""
        rules = {
            "budgets": self.rules.budgets,
            "evaluations": self.rules.evaluations,
            "evaluator": self.evaluator.key,
            **self.charge.identity(),
        }
        digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / "plays" / f"{method}-{seed}-{digest}.csv"

    @staticmethod
    def _accuracy(archive: Archive, subnet: Subnet, evaluator: AccuracyEvaluator) -> float:
        known = archive.find(subnet)
        if known is not None:
            return known.accuracy
        started = time.perf_counter()
        accuracy = evaluator.accuracy(subnet)
        archive.append(Evaluation(subnet, accuracy, time.perf_counter() - started, "compare"))
        return accuracy

    def _one(self, archive: Archive, name: str, seed: int, reporter: _Reporter) -> Play:
        path = self.path(name, seed)
        if path.is_file():
            play = Play.read(path)
            reporter.end()
            return play
        rules, charge = self.rules, self.charge.renewed()
        desk = Desk(
            charge=charge,
            archive=archive,
            evaluator=self.evaluator,
            executor=self._executor,
            budget=rules.evaluations,
            after_each=lambda: reporter.tick(name, seed, desk.spent),
        )
        task = Task(charge=charge, budgets=rules.budgets, evaluations=rules.evaluations, seed=seed)
        self._methods[name](task).run(desk)
        reporter.end()
        play = desk.play(name, seed, max(rules.budgets))
        play.write(path)
        return play

    def _order(self) -> Iterator[tuple[int, str]]:
        for seed in self.rules.seeds:
            for name in self.rules.methods:
                yield seed, name


class _Reporter:
    def __init__(self, rules: Rules, progress: Callable[[Progress], None]) -> None:
        self._progress = progress
        self._per_play = rules.evaluations
        self._total = rules.evaluations * len(rules.methods) * len(rules.seeds)
        self._done, self._new, self._started = 0, 0, time.monotonic()

    def tick(self, method: str, seed: int, evaluations: int) -> None:
        self._new += 1
        done = self._done + evaluations
        left = (time.monotonic() - self._started) / self._new * (self._total - done)
        self._progress(
            Progress(
                method=method,
                seed=seed,
                evaluations=evaluations,
                done=done,
                total=self._total,
                seconds_left=left,
            )
        )

    def end(self) -> None:
        self._done += self._per_play


def methods_of(names: Sequence[str] | None, *, first: str) -> tuple[str, ...]:
    """The named methods, by default all; the one that others are compared with comes first."""
    wanted = list(names) if names else method_names()
    return tuple(sorted(wanted, key=lambda name: name != first))
