"""The books of one search: what it knows, what it may still spend, and the archive as its memory.

A search decides only by its seed and by the accuracies it asked for. Run again, it asks the same questions in the same
order and the archive answers those that were evaluated before, so an interrupted search goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

import numpy as np

from fn3hw.errors import RunError
from fn3hw.searcher.archive import Archive, Evaluation
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.ports import AccuracyEvaluator, Executor, FloatArray, IntArray
from fn3hw.searcher.racing import Race, Runner
from fn3hw.space.subnet import Subnet


class Ledger:
    """Evaluates states within a budget.

    Evaluations that other searches left in the archive before this one began are known from the start and cost nothing.

    Args:
        archive: opened for writing.
        evaluator: asked where the archive has no answer.
        executor: runs the evaluations.
        charge: turns states to subnets.
        budget: the most subnets that this search may ask for, over all its runs.
        search: the identity of this search: equal for an interrupted one and its continuation.
        race: gives candidates up that are certainly beaten; by default all are evaluated on all images.
        after_each: called after each answer.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        evaluator: AccuracyEvaluator,
        executor: Executor,
        charge: Charge,
        budget: int,
        search: str,
        race: Race | None = None,
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        if archive.key != evaluator.key:
            raise RunError(f"{archive.path} was opened for another evaluator than the one that is to fill it.")
        self._archive = archive
        self._evaluator = evaluator
        self._executor = executor
        self._charge = charge
        self._search = search
        self._race = race
        self._after_each = after_each
        self.budget = budget
        self.spent = 0
        self.evaluated = 0
        self._known: dict[bytes, tuple[IntArray, float]] = {}
        self._finished: dict[Subnet, Runner] = {}
        for evaluation in archive.evaluations[: archive.began(search)]:
            if evaluation.subnet.is_prefix:
                self._learn(evaluation)

    @property
    def left(self) -> int:
        """Subnets that may still be asked for."""
        return self.budget - self.spent

    @property
    def states(self) -> IntArray:
        """All known states, shape (n, G), in the order in which they became known."""
        rows = [state for state, _ in self._known.values()]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self._charge.sizes))

    @property
    def accuracies(self) -> FloatArray:
        """Accuracy of each of `states` in percent, shape (n,)."""
        return np.array([accuracy for _, accuracy in self._known.values()])

    def is_new(self, states: IntArray) -> list[bool]:
        """Which of (n, G) canonical states are not known yet; of equal ones, only the first is new."""
        return first_seen(states, self._known)

    def evaluate(self, states: IntArray) -> None:
        """Make (n, G) states known, in order, as far as the budget goes."""
        wanted = self._charge.canonical(states)
        wanted = wanted[self.is_new(wanted)][: self.left]
        subnets = [self._charge.subnet(state) for state in wanted]
        found = {subnet: self._archive.find(subnet, self._search) for subnet in subnets}
        missing = [subnet for subnet, evaluation in found.items() if evaluation is None]
        if missing and self._race is not None:
            # A race that was interrupted is run again as a whole: who is given up depends on all who run.
            own = {s for s, evaluation in found.items() if evaluation and evaluation.search == self._search}
            missing = [subnet for subnet in subnets if subnet in own or found[subnet] is None]
        for subnet, evaluation in found.items():
            if evaluation is not None and subnet not in missing:
                self._count(evaluation)
        for evaluation in self._evaluations(missing):
            self._archive.append(evaluation)
            self.evaluated += 1
            self._count(evaluation)
            self._after_each()
        # Asked from the archive or from the evaluator, the known states are in the same order.
        for state in wanted:
            key = state.tobytes()
            self._known[key] = self._known.pop(key)

    def _count(self, evaluation: Evaluation) -> None:
        self.spent += 1
        self._learn(evaluation)

    def _evaluations(self, subnets: list[Subnet]) -> Iterable[Evaluation]:
        if not subnets:
            return
        if self._race is not None:
            costs = self._charge.of(np.stack([self._charge.state(subnet) for subnet in subnets]))
            candidates = [Runner(subnet, float(cost)) for subnet, cost in zip(subnets, costs, strict=True)]
            for outcome in self._race.run(candidates, list(self._finished.values())):
                yield Evaluation(outcome.subnet, outcome.accuracy, outcome.seconds, self._search, outcome.images)
            return
        started = time.perf_counter()
        for subnet, accuracy in zip(subnets, self._executor.map(self._evaluator.accuracy, subnets), strict=True):
            yield Evaluation(subnet, float(accuracy), time.perf_counter() - started, self._search)
            started = time.perf_counter()

    def _learn(self, evaluation: Evaluation) -> None:
        state, accuracy = self._charge.state(evaluation.subnet), evaluation.accuracy
        self._known[state.tobytes()] = (state, accuracy)
        if self._race is not None and evaluation.images is None:
            cost = float(self._charge.of(state[None])[0])
            self._finished[evaluation.subnet] = Runner(evaluation.subnet, cost, accuracy)


def first_seen(states: IntArray, known: Collection[bytes]) -> list[bool]:
    """Which of (n, G) states are not among the known ones, by their bytes; of equal ones, only the first."""
    seen, result = set(known), []
    for state in states:
        key = state.tobytes()
        result.append(key not in seen)
        seen.add(key)
    return result
