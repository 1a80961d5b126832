"""The shape of a device's cost in one count: a staircase, and a penalty off its alignment.

Kernels work on blocks of channels: time is flat up to the next multiple of ``step``. A width that is no multiple of
``align`` leaves the fast path: it pays once, and again for its width, or for the blocks that this takes there. Every
term grows with the count, so a combination with non-negative coefficients can fall only where a count leaves the fast
path or comes back to it, or passes the count below which another kernel runs, as on real devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

TERMS = ("steps", "off", "off*count")
"""Names of the columns of `Rule.terms`."""

PRODUCTS = (
    "steps({a})*steps({b})",
    "one_off({a},{b})*{a}",
    "one_off({a},{b})*{b}",
    "off({a})*on({b})*{a}*{b}",
    "on({a})*off({b})*{a}*{b}",
    "off({a})*off({b})*{a}*{b}",
)
"""What two widths of one operation cost together."""


NARROW = (4, 8, 16, 32)
"""Counts below which there may be another kernel: the sizes of blocks that processors compute in."""

SECOND = (2, 4, 8, 16)
"""Second alignments that there may be."""

TAILS = (4, 8, 16, 32)
"""Blocks of which the rest of a count may be computed one by one."""

BLOCKS = (8, 16, 32)
"""Blocks that a kernel off the fast path may compute in."""

NEGLIGIBLE = 1e-4
"""Relative errors smaller than this are alike: no device repeats better."""


def pays(error: float, without: float, *, n: int, choices: int = 1) -> bool:
    """Whether something lowers an error by more than having had the choice explains (a likelihood ratio).

    Args:
        error: leave-one-out, with it.
        without: the same without it.
        n: how many subnets the errors are a mean over.
        choices: how many things there were to choose from.
    """
    return bool(n * np.log((without + NEGLIGIBLE) / (error + NEGLIGIBLE)) > 2 * np.log(1 + choices))


@dataclass(frozen=True, order=True, slots=True)
class Rule:
    """How time follows one count.

    Args:
        step: time is flat within ``step`` counts; 1 means that every count matters.
        align: counts that are no multiple of it leave the fast path; 1 means that there is no such penalty.
        narrow: counts below it run another kernel, such as one that was made for images of few channels; 0 means that
            there is none.
        second: counts that are no multiple of this second alignment leave another fast path; 0 means that there is
            none.
        tail: what is left of a count after blocks of so many is computed one by one; 0 means that it is not.
        blocks: off the fast path, time is flat within so many counts; 1 means that every count matters there.
    """

    step: int = 1
    align: int = 1
    narrow: int = 0
    second: int = 0
    tail: int = 0
    blocks: int = 1

    def rounded(self, counts: FloatArray) -> FloatArray:
        """Counts as the kernel off the fast path computes them, in whole blocks; any shape."""
        return np.ceil(counts / self.blocks) * self.blocks if self.blocks > 1 else counts

    def terms(self, counts: FloatArray) -> FloatArray:
        """Terms of shape (n, 3) of counts of shape (n,); all are 0 at count 0, where nothing is left to compute.

        After them come those of `special`.
        """
        counts = np.asarray(counts, dtype=np.float64)
        off = (np.mod(counts, self.align) != 0).astype(np.float64)
        terms = np.stack([np.ceil(counts / self.step), off, off * self.rounded(counts)], axis=1)
        return np.concatenate([terms, self.special(counts)], axis=1)

    def special(self, counts: FloatArray) -> FloatArray:
        """Terms of what only some devices have: shape (n, 0 to 5).

        Whether a kernel for few runs, or one for counts off the second alignment, each also times the count, and the
        rest that is computed one by one.
        """
        columns = []
        if self.narrow:
            runs = ((counts > 0) & (counts < self.narrow)).astype(np.float64)
            columns += [runs, runs * counts]
        if self.second:
            off = (np.mod(counts, self.second) != 0).astype(np.float64)
            columns += [off, off * counts]
        if self.tail:
            columns += [np.mod(counts, self.tail)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(counts), 0))

    def __str__(self) -> str:
        step = f"steps of {self.step}" if self.step > 1 else "every count matters"
        align = f"{step}, aligned to {self.align}" if self.align > 1 else f"{step}, no alignment"
        found = [align]
        found += [f"another kernel below {self.narrow}"] if self.narrow else []
        found += [f"aligned to {self.second} as well"] if self.second else []
        found += [f"the rest of {self.tail} one by one"] if self.tail else []
        found += [f"otherwise in blocks of {self.blocks}"] if self.blocks > 1 else []
        return ", ".join(found)


def candidates(counts: FloatArray) -> list[Rule]:
    """Rules worth trying for counts (n,) or (n, k), the simplest first: powers of two within the data's range."""
    counts = np.asarray(counts, dtype=np.float64)
    span = float(np.max(np.ptp(counts, axis=0))) if counts.size else 0.0
    powers = [1 << e for e in range(16) if 1 << e <= max(span, 1.0)]
    integral = bool(np.all(counts == np.round(counts)))
    return sorted((Rule(step, align) for step, align in product(powers, powers) if integral or align == 1),
                  key=lambda rule: (rule.align > 1, -rule.step, -rule.align))  # fmt: skip


def simplest(rules: Sequence[Rule], errors: FloatArray, *, n: int) -> Rule:
    """The rule with the smallest error, where an alignment has to earn that it was one of many to choose from.

    Args:
        rules: the candidates.
        errors: their leave-one-out errors, relative, shape (len(rules),).
        n: how many subnets the errors are a mean over.
    """
    earn = np.array([1.0 + np.log(len(rules)) / n * (rule.align > 1) for rule in rules])
    return rules[int(np.argmin((errors + NEGLIGIBLE) * earn))]


def design(counts: FloatArray, rules: Sequence[Rule], pairs: Sequence[tuple[int, int]] = ()) -> FloatArray:
    """Design matrix of counts (n, k): 1, the terms of each column, and the `PRODUCTS` of each pair of columns.

    What is special of one of a pair is multiplied by the other count besides.
    """
    counts = np.asarray(counts, dtype=np.float64)
    terms = [rule.terms(counts[:, j]) for j, rule in enumerate(rules)]
    off = [rule.rounded(counts[:, j]) for j, rule in enumerate(rules)]
    products = [_products(off[a], terms[a], off[b], terms[b]) for a, b in pairs]
    for one, other in (ordered for pair in pairs for ordered in (pair, pair[::-1])):
        products.append(rules[one].special(counts[:, one]) * counts[:, [other]])
    return np.concatenate([np.ones((len(counts), 1)), *terms, *products], axis=1)


def is_fast(rules: Sequence[Rule], pairs: Sequence[tuple[int, int]] = ()) -> NDArray[np.bool_]:
    """Which columns of `design` are the time of the fast path: 1, the steps of each column, and their products."""
    special = [rule.special(np.zeros(0)).shape[1] for rule in rules]
    fast = [True, *(first for extra in special for first in (True, False, False, *[False] * extra))]
    fast += [product == PRODUCTS[0] for _ in pairs for product in PRODUCTS]
    fast += [False] * sum(special[one] for pair in pairs for one in pair)
    return np.array(fast)


def _products(a: FloatArray, terms_a: FloatArray, b: FloatArray, terms_b: FloatArray) -> FloatArray:
    """On the fast path both widths come in steps. Off it, how they matter depends on which of them is unaligned.

    Where one of them is, the data change their layout between the two, which may cost more than if both were.

    Args:
        a: one width as the kernel off the fast path computes it, shape (n,).
        terms_a: its `Rule.terms`.
        b: the other.
        terms_b: its terms.
    """
    off_a, off_b, work = terms_a[:, 1], terms_b[:, 1], a * b
    only_a, only_b = off_a * (1 - off_b), (1 - off_a) * off_b
    one = only_a + only_b
    columns = [terms_a[:, 0] * terms_b[:, 0], one * a, one * b, only_a * work, only_b * work, off_a * off_b * work]
    return np.stack(columns, axis=1)


def names(columns: Sequence[str], pairs: Sequence[tuple[int, int]] = ()) -> Iterator[str]:
    """Names of the columns of `design`."""
    yield "1"
    for column in columns:
        yield from (f"{term}({column})" for term in TERMS)
    for i, j in pairs:
        yield from (product.format(a=columns[i], b=columns[j]) for product in PRODUCTS)


def all_pairs(n_columns: int) -> tuple[tuple[int, int], ...]:
    """Every pair of columns."""
    return tuple((a, b) for a in range(n_columns) for b in range(a + 1, n_columns))
