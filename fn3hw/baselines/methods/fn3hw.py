"""Our own search, `fn3hw.searcher.Heuristic`, with its defaults."""

from __future__ import annotations

from fn3hw.baselines.methods.port import Method
from fn3hw.searcher.heuristic import Heuristic
from fn3hw.searcher.ports import Books


class Fn3hw(Method):
    """One search answers all budgets."""

    def run(self, books: Books) -> None:
        """See `Method`."""
        if books.left >= 2:
            Heuristic(evaluations=books.left, seed=self.task.seed).run(self.task.charge, books)
        else:
            books.evaluate(self.task.charge.sizes[None])
