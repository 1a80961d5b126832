"""Candidates race on growing parts of the images; one that is certainly beaten is given up.

A candidate's rival is the most accurate subnet that costs no more. Both are compared on the same images, which tells
them apart far sooner than two accuracies do: images that both get right, or both get wrong, say nothing (McNemar, Note
on the sampling error of the difference between correlated proportions, 1947). The race only asks what all of the images
would say: the more of them were seen, the less can still change. Racing of candidates is by Maron and Moore (Hoeffding
races, 1994).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fn3hw.errors import InputError
from fn3hw.searcher.ports import BoolArray, Executor, ImageEvaluator
from fn3hw.space.subnet import Subnet

SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Shares of the images after which candidates are compared."""
FEWEST = 64
"""Images that nothing is given up before."""
_SAME_COST = 0.02
"""A rival may cost more by this share."""
_REMEMBERED = 512

Part = tuple[Subnet, int, int]
"""A subnet, and the first and the last image, exclusive, that it is to answer."""


@dataclass(frozen=True, slots=True)
class Runner:
    """A subnet in a race, or one that has run before.

    Args:
        subnet: what runs.
        cost: of it.
        accuracy: in percent, on all images; NaN for one that is to run.
    """

    subnet: Subnet
    cost: float
    accuracy: float = float("nan")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a candidate did.

    Args:
        subnet: the candidate.
        accuracy: in percent: on all images, or estimated from those that it was given up after.
        seconds: its share of the time.
        images: that it was given up after; None where it saw all.
    """

    subnet: Subnet
    accuracy: float
    seconds: float
    images: int | None


class Race:
    """Runs candidates against one another and against what is known.

    Args:
        evaluator: says on which images a subnet is right.
        executor: runs the evaluations.
        behind: standard errors behind a rival at which a candidate is given up.

    Raises:
        InputError: ``behind`` is not positive.
    """

    def __init__(self, evaluator: ImageEvaluator, executor: Executor, *, behind: float) -> None:
        if not behind > 0:
            raise InputError(f"A candidate can be given up a positive number of standard errors behind, not {behind}.")
        self._n_images = evaluator.n_images
        self._looks = looks(evaluator.n_images, evaluator.batch_size)
        self._executor = executor
        self._behind = behind
        self._answer = _Answer(evaluator)
        self._right: OrderedDict[Subnet, BoolArray] = OrderedDict()

    def run(self, candidates: Sequence[Runner], known: Sequence[Runner]) -> Iterator[Outcome]:
        """Yield an outcome for every candidate: first of those that are given up, in the end of those that are not.

        Args:
            candidates: to evaluate.
            known: subnets with an accuracy on all images. One whose answers are not remembered is asked for them again
                where it is a rival.
        """
        marks = {candidate.subnet: _mark(candidate, known) for candidate in candidates}
        self._recall([mark for mark, _ in marks.values() if mark is not None])
        live, seconds = list(candidates), 0.0
        right = {candidate.subnet: np.zeros(0, dtype=bool) for candidate in candidates}
        for start, stop in pairwise((0, *self._looks)):
            started = time.perf_counter()
            parts: list[Part] = [(runner.subnet, start, stop) for runner in live]
            for (subnet, _, _), answer in zip(parts, self._executor.map(self._answer, parts), strict=True):
                right[subnet] = np.concatenate([right[subnet], answer])
            seconds += (time.perf_counter() - started) / max(len(live), 1)
            if stop == self._n_images:
                break
            beaten = [one for one in live if self._is_beaten(one, live, right, marks)]
            for one in beaten:
                mark = marks[one.subnet][0]
                assert mark is not None
                difference = right[one.subnet].mean() - self._right[mark.subnet][:stop].mean()
                accuracy = float(np.clip(mark.accuracy + 100.0 * difference, 0.0, 100.0))
                yield Outcome(one.subnet, accuracy, seconds, stop)
            live = [one for one in live if one not in beaten]
        for one in live:
            self._remember(one.subnet, right[one.subnet])
            yield Outcome(one.subnet, 100.0 * float(right[one.subnet].mean()), seconds, None)

    def _is_beaten(
        self,
        one: Runner,
        live: Sequence[Runner],
        right: dict[Subnet, BoolArray],
        marks: dict[Subnet, tuple[Runner | None, bool]],
    ) -> bool:
        mark, is_rival = marks[one.subnet]
        if mark is None:
            return False  # nothing is known yet that an estimate could start from
        own = right[one.subnet]
        rivals = [right[other.subnet] for other in live if other is not one and _costs_no_more(other, one)]
        if is_rival:
            rivals.append(self._right[mark.subnet][: len(own)])
        return any(is_behind(own, rival, self._n_images, self._behind) for rival in rivals)

    def _recall(self, marks: Sequence[Runner]) -> None:
        """Make the answers of subnets known that ran before."""
        missing = [subnet for subnet in dict.fromkeys(mark.subnet for mark in marks) if subnet not in self._right]
        parts: list[Part] = [(subnet, 0, self._n_images) for subnet in missing]
        for subnet, answer in zip(missing, self._executor.map(self._answer, parts), strict=True):
            self._remember(subnet, answer)
        for mark in marks:
            self._right.move_to_end(mark.subnet)

    def _remember(self, subnet: Subnet, right: BoolArray) -> None:
        self._right[subnet] = right
        while len(self._right) > _REMEMBERED:
            self._right.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an executor runs: it may be sent to another machine, once."""

    evaluator: ImageEvaluator

    def __call__(self, part: Part) -> BoolArray:
        return self.evaluator.right(*part)


def looks(n_images: int, batch_size: int) -> tuple[int, ...]:
    """Numbers of images after which candidates are compared, and all of them; multiples of the batch size."""
    parts = {-(-round(share * n_images) // batch_size) * batch_size for share in SHARES}
    return (*sorted(n for n in parts if FEWEST <= n < n_images), n_images)


def is_behind(own: BoolArray, rival: BoolArray, n_images: int, errors: float) -> bool:
    """Whether a candidate is so many standard errors behind a rival that it will not catch up on all images.

    Were the two to be right equally often on all of the images, their difference on the first n of them would have a
    variance of the discordant images among these, times the share of images that is not seen yet. One more is counted:
    few discordant images are a poor measure of their own number.

    Args:
        own: where the candidate is right, shape (n,).
        rival: where the rival is right, shape (n,).
        n_images: how many there are in all.
        errors: standard errors.
    """
    gained, lost = int((own & ~rival).sum()), int((rival & ~own).sum())
    unseen = 1.0 - len(own) / n_images
    return lost - gained > errors * float(np.sqrt((gained + lost + 1) * unseen))


def _mark(candidate: Runner, known: Sequence[Runner]) -> tuple[Runner | None, bool]:
    """The known subnet that a candidate is measured by, and whether it is a rival.

    Without a rival, it is the one that comes nearest in cost.
    """
    rivals = [one for one in known if _costs_no_more(one, candidate)]
    if rivals:
        return max(rivals, key=lambda one: (one.accuracy, -one.cost)), True
    return min(known, key=lambda one: one.cost, default=None), False


def _costs_no_more(one: Runner, other: Runner) -> bool:
    return one.cost <= other.cost * (1 + _SAME_COST)
