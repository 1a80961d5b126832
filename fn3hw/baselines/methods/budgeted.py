"""Methods that search for one budget at a time: the evaluations are shared out among the budgets."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from fn3hw.baselines.methods.port import PATIENCE, Proposals, Proposer
from fn3hw.searcher.ports import FloatArray, IntArray

_HALVINGS = 12


class Budgeted(Proposer):
    """A search for each budget, from the largest down, each with an equal share of the evaluations that are left.

    Answers for states that were evaluated for an earlier budget cost nothing, but a search learns nothing else from
    those before it: that is what a new budget costs with such a method.
    """

    def propose(self) -> Proposals:
        """See `Proposer`."""
        known: dict[bytes, float] = {}
        budgets = sorted(self.task.budgets, reverse=True)
        for number, budget in enumerate(budgets):
            share = -(-(self.task.evaluations - len(known)) // (len(budgets) - number))
            yield from self._within(self.search(budget, share), len(known) + share, known)

    def _within(self, search: Proposals, limit: int, known: dict[bytes, float]) -> Proposals:
        """A search until so many states are known or it only repeats itself; what is known is not asked again."""
        stale = 0
        try:
            states = self.task.charge.canonical(next(search))
            while len(known) < limit and stale < PATIENCE:
                # What goes beyond the share waits: the next budget has its own.
                new = {state.tobytes(): state for state in states if state.tobytes() not in known}
                asked = dict(list(new.items())[: limit - len(known)])
                if asked:
                    known.update(zip(asked, (yield np.array(list(asked.values()))), strict=True))
                stale = 0 if asked else stale + 1
                if len(known) < limit:
                    answers = np.array([known[state.tobytes()] for state in states])
                    states = self.task.charge.canonical(search.send(answers))
        except StopIteration:
            pass
        finally:
            search.close()

    @abstractmethod
    def search(self, budget: float, evaluations: int) -> Proposals:
        """Search for one budget; as `Proposer.propose`, with about so many evaluations."""

    def lowered(self, places: FloatArray, budget: float) -> IntArray:
        """States at places (n, G) on the ladders, each moved down as a whole until it costs at most the budget.

        A place x becomes 1 - (1 - x)(1 - t), with the smallest t that suffices: relations between gates are kept.
        """
        places = np.asarray(places, dtype=np.float64)
        low, high = np.zeros(len(places)), np.ones(len(places))
        meets = self.task.charge.of(self.task.at(places)) <= budget
        high[meets] = 0.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = self.task.charge.of(self.task.at(1 - (1 - places) * (1 - middle[:, None]))) <= budget
            high, low = np.where(fits, middle, high), np.where(fits, low, middle)
        return self.task.at(1 - (1 - places) * (1 - high[:, None]))
