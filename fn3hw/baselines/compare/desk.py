"""Where a method's states are evaluated, and the books of one play."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import moocore
import numpy as np
import pandas as pd

from fn3hw.errors import RunError
from fn3hw.searcher.archive import Archive, Evaluation
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.ledger import first_seen
from fn3hw.searcher.ports import AccuracyEvaluator, Executor, FloatArray, IntArray
from fn3hw.space.files import write_text
from fn3hw.space.subnet import Subnet

_COLUMNS = ("subnet", "cost", "accuracy", "evaluating_s", "thinking_s")


@dataclass(frozen=True, slots=True)
class Play:
    """What one method asked for with one seed, in order.

    Args:
        method: its name.
        seed: its seed.
        subnets: ids of the evaluated subnets, n of them.
        cost: of each, shape (n,), in ms or what else was charged.
        accuracy: of each in percent, shape (n,); NaN where its evaluation failed.
        evaluating_s: seconds that each evaluation took when it was made, shape (n,).
        thinking_s: seconds that the method itself took before it asked for each, shape (n,).
        infeasible: how many of them cost more than every budget.
    """

    method: str
    seed: int
    subnets: tuple[str, ...]
    cost: FloatArray
    accuracy: FloatArray
    evaluating_s: FloatArray
    thinking_s: FloatArray
    infeasible: int

    @property
    def failed(self) -> int:
        """Evaluations without an accuracy."""
        return int(np.isnan(self.accuracy).sum())

    @property
    def seconds(self) -> FloatArray:
        """Seconds since the start at which each accuracy was known, shape (n,)."""
        return np.cumsum(self.evaluating_s + self.thinking_s)

    def best_within(self, budget: float) -> int | None:
        """Index of the most accurate subnet that costs at most ``budget``; None where there is none."""
        accuracy = np.where(self.cost <= budget, np.nan_to_num(self.accuracy, nan=-np.inf), -np.inf)
        return int(accuracy.argmax()) if len(accuracy) and np.isfinite(accuracy.max()) else None

    def front(self) -> list[int]:
        """Indices of the subnets that are more accurate than all that cost no more, by ascending cost."""
        rows = np.flatnonzero(np.isfinite(self.accuracy))
        if not len(rows):
            return []
        rows = rows[moocore.is_nondominated(np.stack([self.cost[rows], -self.accuracy[rows]], axis=1))]
        return [int(row) for row in rows[np.argsort(self.cost[rows])]]

    def write(self, path: Path) -> None:
        """To a CSV file."""
        values = (self.subnets, self.cost, self.accuracy, self.evaluating_s, self.thinking_s)
        table = pd.DataFrame(dict(zip(_COLUMNS, values, strict=True)))
        write_text(path, f"# {self.method},{self.seed},{self.infeasible}\n{table.to_csv(index=False)}")

    @classmethod
    def read(cls, path: Path) -> Play:
        """From a CSV file.

        Raises:
            RunError: it is damaged.
        """
        try:
            head, _, rest = path.read_text().partition("\n")
            method, seed, infeasible = head.removeprefix("# ").rsplit(",", 2)
            table = pd.read_csv(io.StringIO(rest), dtype={"subnet": str})
            cost, accuracy, evaluating_s, thinking_s = table[list(_COLUMNS[1:])].to_numpy(dtype=np.float64).T
            subnets = tuple(table["subnet"])
            return cls(method, int(seed), subnets, cost, accuracy, evaluating_s, thinking_s, int(infeasible))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"{path} is damaged: {error}.", hint=f"Delete it; its evaluations are kept in the archive: rm {path}"
            ) from error


class Desk:
    """Evaluates states for one play, from the shared archive where they were evaluated before.

    An evaluation that fails is counted, and its accuracy is NaN; the play goes on.

    Args:
        charge: costs of states.
        archive: shared by all plays; opened for writing.
        evaluator: asked where the archive has no answer.
        executor: runs the evaluations.
        budget: evaluations of this play.
        after_each: called after each evaluation.
    """

    def __init__(
        self,
        *,
        charge: Charge,
        archive: Archive,
        evaluator: AccuracyEvaluator,
        executor: Executor,
        budget: int,
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        self.charge = charge
        self.budget = budget
        self._archive = archive
        self._evaluate = _Tolerant(evaluator)
        self._executor = executor
        self._after_each = after_each
        self._known: set[bytes] = set()
        self._states: list[IntArray] = []
        self._rows: list[tuple[str, float, float, float, float]] = []
        self._resumed = time.perf_counter()

    @property
    def spent(self) -> int:
        """Evaluations so far."""
        return len(self._rows)

    @property
    def left(self) -> int:
        """Evaluations that are left."""
        return self.budget - self.spent

    @property
    def states(self) -> IntArray:
        """All states with an accuracy, shape (n, G), in the order in which they were asked for."""
        rows = [state for state, row in zip(self._states, self._rows, strict=True) if not math.isnan(row[2])]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self.charge.sizes))

    @property
    def accuracies(self) -> FloatArray:
        """Accuracy of each of `states` in percent, shape (n,)."""
        return np.array([row[2] for row in self._rows if not math.isnan(row[2])])

    def is_new(self, states: IntArray) -> list[bool]:
        """Which of (n, G) canonical states were not asked for yet; of equal ones, only the first is new."""
        return first_seen(states, self._known)

    def evaluate(self, states: IntArray) -> None:
        """Evaluate (n, G) states, in order, as far as the evaluations go."""
        wanted = self.charge.canonical(states)
        wanted = wanted[np.array(self.is_new(wanted), dtype=bool)][: self.left] if len(wanted) else wanted
        thought_s = time.perf_counter() - self._resumed
        costs = self.charge.of(wanted) if len(wanted) else np.zeros(0)
        subnets = [self.charge.subnet(state) for state in wanted]
        self._fill([subnet for subnet in subnets if subnet not in self._archive])
        for state, subnet, cost in zip(wanted, subnets, costs, strict=True):
            found = self._archive.find(subnet)
            accuracy, seconds = (found.accuracy, found.seconds) if found else (math.nan, 0.0)
            self._known.add(state.tobytes())
            self._states.append(state)
            self._rows.append((subnet.id, float(cost), accuracy, seconds, thought_s / len(wanted)))
            self._after_each()
        self._resumed = time.perf_counter()

    def play(self, method: str, seed: int, largest: float) -> Play:
        """The books so far; what costs more than ``largest`` is counted as infeasible."""
        subnets, *columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(_COLUMNS)
        cost, accuracy, evaluating_s, thinking_s = (np.array(column, dtype=np.float64) for column in columns)
        infeasible = int((cost > largest).sum())
        return Play(method, seed, tuple(subnets), cost, accuracy, evaluating_s, thinking_s, infeasible)

    def _fill(self, subnets: list[Subnet]) -> None:
        """Evaluate what the archive does not have; subnets that fail stay out of it."""
        started = time.perf_counter()
        for subnet, accuracy in zip(subnets, self._executor.map(self._evaluate, subnets), strict=True):
            now = time.perf_counter()
            if math.isfinite(accuracy):
                self._archive.append(Evaluation(subnet, accuracy, now - started, "compare"))
            started = time.perf_counter()


@dataclass(frozen=True, slots=True)
class _Tolerant:
    """Evaluates, here or on another machine; what cannot be evaluated has no accuracy."""

    evaluator: AccuracyEvaluator

    def __call__(self, subnet: Subnet) -> float:
        try:
            return self.evaluator.accuracy(subnet)
        except Exception:  # whatever is said of one subnet must not end the contest
            return math.nan
