"""A gate: an ordered set of removable blocks at one place of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fn3hw.errors import InputError, UnknownName

LEVELS: Final = ("bit", "neuron", "channel", "path", "layer")
"""The kinds of block, from the finest to the coarsest (paper, sec. 2.1)."""


def check_level(level: str) -> str:
    """Return ``level``, or raise `UnknownName` with the nearest level that exists."""
    if level not in LEVELS:
        raise UnknownName("level", level, LEVELS)
    return level


@dataclass(frozen=True, slots=True)
class Gate:
    """An ordered set of ``size`` blocks of one level at one place of the network: the paper's ODO unit (sec. 2.2).

    Args:
        name: unique within a search space, taken from the module that makes the blocks.
        level: one of `LEVELS`.
        size: M, the number of blocks; the first is the most important one.
        min_kept: how many of the first blocks every subnet keeps, ``0 <= min_kept <= size``.
    """

    name: str
    level: str
    size: int
    min_kept: int = 1

    def __post_init__(self) -> None:
        check_level(self.level)
        if not 0 <= self.min_kept <= self.size or self.size < 1:
            raise InputError(
                f"Gate {self.name!r} has {self.size} blocks and keeps at least {self.min_kept}: "
                "needs 0 <= min_kept <= size and size >= 1."
            )

    def keep_probability(self, block: int) -> float:
        """β of a block: the probability that ordered dropout keeps it, ``(M + 1 - m) / M`` with m from 1 (sec. 2.2).

        Args:
            block: index of the block, from 0.
        """
        return (self.size - block) / self.size
