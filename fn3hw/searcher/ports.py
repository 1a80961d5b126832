"""What the search asks of the rest of the package: small protocols, so that any of them can be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fn3hw.space.subnet import Subnet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Item = TypeVar("Item")
Result = TypeVar("Result")


class AccuracyEvaluator(Protocol):
    """Says how accurate a subnet is. Equal subnets give equal values."""

    @property
    def key(self) -> str:
        """``network:settings``, digests of all that a value depends on; values with another key are not comparable."""
        ...

    def accuracy(self, subnet: Subnet) -> float:
        """Top-1 accuracy in percent, 0 to 100."""
        ...


@runtime_checkable
class ImageEvaluator(AccuracyEvaluator, Protocol):
    """An evaluator that also says on which images a subnet is right, so that subnets can race."""

    @property
    def n_images(self) -> int:
        """Images that an accuracy is the mean of."""
        ...

    @property
    def batch_size(self) -> int:
        """Parts of the images begin and end at multiples of it."""
        ...

    def right(self, subnet: Subnet, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Whether the subnet is right on each of the images from ``start`` to before ``stop``."""
        ...


class CostPredictor(Protocol):
    """Says what a subnet costs on a device; `fn3hw.cost.CostModel` is one."""

    def predict(self, subnets: Sequence[Subnet]) -> pd.DataFrame:
        """One row per subnet: latency_ms, latency_ms_low, latency_ms_high, peak_mib, size_mib."""
        ...


@runtime_checkable
class CountsPredictor(CostPredictor, Protocol):
    """A cost predictor that takes counts as they are; a search asks it some thousand times for each evaluation."""

    def costs(self, counts: IntArray) -> FloatArray:
        """latency_ms, peak_mib and size_mib of ordered subnets of (n, G) counts, shape (n, 3); as `predict`."""
        ...


@runtime_checkable
class LadderPredictor(CountsPredictor, Protocol):
    """A cost predictor that looks up states whose counts lie on ladders that are known beforehand."""

    def on_ladders(self, ladders: Sequence[IntArray]) -> Callable[[IntArray], FloatArray] | None:
        """Costs, as `costs`, from (n, G) numbers of rungs on G ladders of counts; None where it cannot."""
        ...


class SearchData(Protocol):
    """A data set with a split held out to choose subnets on; `fn3hw.training.Data` is one."""

    def arrays(self, split: str, limit: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Images of shape (N, C, H, W), normalised, and labels of shape (N,)."""
        ...


class Executor(Protocol):
    """Runs a function over items, such as subnets, here or elsewhere."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results in the order of ``items``, each as soon as it and those before it are there."""
        ...


class Books(Protocol):
    """Where a search evaluates states, and finds what it knows; `fn3hw.searcher.ledger.Ledger` is one.

    A state is a row of counts, one per gate; see `fn3hw.searcher.charge.Charge`.
    """

    @property
    def budget(self) -> int:
        """New states that this search may ask for in all."""
        ...

    @property
    def spent(self) -> int:
        """New states that it has asked for."""
        ...

    @property
    def left(self) -> int:
        """New states that it may still ask for."""
        ...

    @property
    def states(self) -> IntArray:
        """All states that are known, shape (n, G)."""
        ...

    @property
    def accuracies(self) -> FloatArray:
        """Their accuracies in percent, shape (n,)."""
        ...

    def is_new(self, states: IntArray) -> list[bool]:
        """Which of (n, G) canonical states are not known yet; of equal ones, only the first is new."""
        ...

    def evaluate(self, states: IntArray) -> None:
        """Make (n, G) states known, in order, as far as `left` goes; what is known already costs nothing."""
        ...
