"""What every method of a comparison is given, and what it does."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from fn3hw.errors import InputError, UnknownName
from fn3hw.searcher.charge import Charge
from fn3hw.searcher.ports import Books, FloatArray, IntArray

Proposals = Generator[IntArray, FloatArray, None]
"""Yields states of shape (n, G); receives the accuracies of these in percent, shape (n,), NaN where there is none."""

PATIENCE = 50
"""Proposals in a row without a new state among them, after which a method has nothing more to propose."""

_PACKAGE = "fn3hw.baselines.methods"
_NOT_METHODS = ("port", "budgeted", "policy", "trials")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is searched for.

    A state is a row of counts, one per gate; see `Charge`. Every count on a gate's ladder, from its size downwards,
    costs less than all larger ones in some precision or width of the other gates; bits have all counts.

    Args:
        charge: costs of states, and the ladders.
        budgets: costs for which the most accurate subnet is wanted.
        evaluations: subnets whose accuracy may be asked for.
        seed: equal seeds, equal proposals.

    Raises:
        InputError: there is no budget or no evaluation, or no subnet meets a budget.
    """

    charge: Charge
    budgets: tuple[float, ...]
    evaluations: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budgets or self.evaluations < 1:
            raise InputError("A search needs at least one budget and one evaluation.")
        lowest = float(self.charge.of(self.at(np.ones((1, self.n_gates))))[0])
        if min(self.budgets) < lowest:
            raise InputError(f"No subnet costs {min(self.budgets):g} or less; the smallest costs {lowest:g}.")

    @property
    def n_gates(self) -> int:
        """G, gates that move or not."""
        return len(self.charge.sizes)

    def at(self, places: FloatArray) -> IntArray:
        """States of shape (n, G) from places on the ladders, 0 (full) to 1 (the last rung), of shape (n, G)."""
        rungs = [
            ladder[np.rint(np.clip(column, 0.0, 1.0) * (len(ladder) - 1)).astype(int)]
            for ladder, column in zip(self.charge.ladders, np.asarray(places, dtype=np.float64).T, strict=True)
        ]
        return self.charge.canonical(np.stack(rungs, axis=1).astype(np.int64))

    def rungs(self, numbers: IntArray) -> IntArray:
        """States of shape (n, G) from numbers of rungs, 0 (full) upwards, of shape (n, G)."""
        columns = zip(self.charge.ladders, np.asarray(numbers).T, strict=True)
        return self.charge.canonical(np.stack([ladder[column] for ladder, column in columns], axis=1).astype(np.int64))

    @property
    def n_rungs(self) -> IntArray:
        """Number of rungs of each ladder, shape (G,)."""
        return np.array([len(ladder) for ladder in self.charge.ladders], dtype=np.int64)


class Method(ABC):
    """A way to search. Equal tasks give equal searches.

    Args:
        task: what is searched for.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rng = np.random.default_rng(task.seed)

    @abstractmethod
    def run(self, books: Books) -> None:
        """Search until the evaluations are spent, or nothing new is asked for any more."""


class Proposer(Method):
    """A search as a generator of proposals."""

    @abstractmethod
    def propose(self) -> Proposals:
        """Yield states and receive their accuracies, until nothing is left to propose.

        It may go on for ever: whoever runs it stops when the evaluations are spent.
        """

    def run(self, books: Books) -> None:
        """Propose and evaluate until the evaluations are spent, or nothing new is proposed any more."""
        proposals, stale = self.propose(), 0
        try:
            states = self.task.charge.canonical(next(proposals))
            while books.left > 0 and stale < PATIENCE:
                stale = 0 if any(books.is_new(states)) else stale + 1
                books.evaluate(states)
                states = self.task.charge.canonical(proposals.send(_answers(books, states)))
        except StopIteration:
            pass
        finally:
            proposals.close()


def _answers(books: Books, states: IntArray) -> FloatArray:
    known = {state.tobytes(): accuracy for state, accuracy in zip(books.states, books.accuracies, strict=True)}
    return np.array([known.get(state.tobytes(), np.nan) for state in states])


def method_names() -> list[str]:
    """All methods, by the names of their files."""
    package = importlib.import_module(_PACKAGE)
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.replace("_", "-") for name in found if name not in _NOT_METHODS)


def find_method(name: str) -> type[Method]:
    """The method of a name.

    Raises:
        UnknownName: there is none.
        InputError: it needs packages that are not installed.
    """
    if name not in method_names():
        raise UnknownName("method", name, method_names())
    try:
        module = importlib.import_module(f"{_PACKAGE}.{name.replace('-', '_')}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"The method {name} needs {error.name}, which is not installed.", hint="pip install 'fn3hw[baselines]'"
        ) from error
    (found,) = (
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Method) and one.__module__ == module.__name__
    )
    return found
