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
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        if archive.key != evaluator.key:
            raise RunError(f"{archive.path} was opened for another evaluator than the one that is to fill it.")
        self._archive = archive
        self._evaluator = evaluator
        self._executor = executor
        self._charge = charge
        self._search = search
        self._after_each = after_each
        self.budget = budget
        self.spent = 0
        self.evaluated = 0
        self._known: dict[bytes, tuple[IntArray, float]] = {}
        self._free: set[bytes] = set()
        self._recall_others()

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
        missing = [subnet for subnet in subnets if subnet not in self._archive]
        for subnet, accuracy, seconds in self._answers(missing):
            self._archive.append(Evaluation(subnet, accuracy, seconds, self._search))
            self.evaluated += 1
            self.spent += 1
            self._learn(subnet, accuracy)
            self._after_each()
        for subnet in subnets:
            found = self._archive.find(subnet)
            if found is not None and subnet not in missing:
                self.spent += 1
                self._learn(subnet, found.accuracy)
        # Asked from the archive or from the evaluator, the known states are in the same order.
        for state in wanted:
            key = state.tobytes()
            self._known[key] = self._known.pop(key)

    def _answers(self, subnets: list[Subnet]) -> Iterable[tuple[Subnet, float, float]]:
        if not subnets:
            return
        started = time.perf_counter()
        results = self._executor.map(self._evaluator.accuracy, subnets)
        for subnet, accuracy in zip(subnets, results, strict=True):
            now = time.perf_counter()
            yield subnet, float(accuracy), now - started
            started = time.perf_counter()

    def _learn(self, subnet: Subnet, accuracy: float) -> None:
        state = self._charge.state(subnet)
        self._known[state.tobytes()] = (state, accuracy)

    def _recall_others(self) -> None:
        for evaluation in self._archive.evaluations:
            if evaluation.search == self._search:
                break
            if evaluation.subnet.is_prefix:
                self._learn(evaluation.subnet, evaluation.accuracy)


def first_seen(states: IntArray, known: Collection[bytes]) -> list[bool]:
    """Which of (n, G) states are not among the known ones, by their bytes; of equal ones, only the first."""
    seen, result = set(known), []
    for state in states:
        key = state.tobytes()
        result.append(key not in seen)
        seen.add(key)
    return result
