"""The paper's search (Algorithm 1), which counts blocks: random candidates, no refinement, no device."""

from __future__ import annotations

import numpy as np

from fn3hw.baselines.methods.port import Method
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.heuristic import Heuristic
from fn3hw.searcher.ledger import first_seen
from fn3hw.searcher.ports import Books, FloatArray, IntArray


class Blocks(Method):
    """`Heuristic.plain`, charged by blocks; one search answers all budgets."""

    def run(self, books: Books) -> None:
        """See `Method`."""
        levels = {
            gate.level for gate, ladder in zip(self.task.charge.space, self.task.charge.ladders, strict=True)
            if len(ladder) > 1
        }  # fmt: skip
        charge = Charge(self.task.charge.space, None, "blocks", levels=levels)
        settings = Heuristic.plain(evaluations=max(2, books.left), seed=self.task.seed)
        settings.run(charge, _Blockwise(books, self.task.charge))


class _Blockwise:
    """Books as a search by block count sees them: it tells states apart that cost and compute the same."""

    def __init__(self, books: Books, charge: Charge) -> None:
        self._books, self._charge = books, charge
        self._known: dict[bytes, tuple[IntArray, float]] = {}

    @property
    def budget(self) -> int:
        """Of the books."""
        return self._books.budget

    @property
    def spent(self) -> int:
        """Of the books."""
        return self._books.spent

    @property
    def left(self) -> int:
        """Of the books."""
        return self._books.left

    @property
    def states(self) -> IntArray:
        """As they were asked for."""
        return np.array([state for state, _ in self._known.values()]).reshape(-1, len(self._charge.sizes))

    @property
    def accuracies(self) -> FloatArray:
        """Of each of `states`."""
        return np.array([accuracy for _, accuracy in self._known.values()])

    def is_new(self, states: IntArray) -> list[bool]:
        """Of states as they are asked for."""
        return first_seen(states, self._known)

    def evaluate(self, states: IntArray) -> None:
        """Evaluate what the states really are."""
        real = self._charge.canonical(states)
        self._books.evaluate(real)
        answers = dict(zip((one.tobytes() for one in self._books.states), self._books.accuracies, strict=True))
        for state, one in zip(states, real, strict=True):
            if one.tobytes() in answers:
                self._known[state.tobytes()] = state, float(answers[one.tobytes()])
