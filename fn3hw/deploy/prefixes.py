"""What a linear operation's outputs are like for every number of first input blocks that is kept, from one product.

The variance of an output is a sum over pairs of inputs, ``w_i w_j Cov_ij``. Sorted by the later of the two, the pairs
of the first k blocks are the first ones: running sums over the blocks are the variances for all k at once. A search
asks for the same few tables over and over, and a look into one costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Mean and variance of C outputs with the first 0 to K input blocks, each of shape (C, K + 1)."""

    mean: Float32
    variance: Float32


def prefixes(weight: Float32, mean: Float32, covariance: Float32, blocks: int) -> Prefixes:
    """The table of an operation.

    Args:
        weight: per group its rows, shape (groups, O, P); C are groups times O.
        mean: of the inputs, shape (groups, P).
        covariance: of the inputs, shape (groups, P, P).
        blocks: K, into which the P inputs of a group divide evenly.
    """
    of = np.arange(mean.shape[-1]) // (mean.shape[-1] // blocks)
    earlier = np.where(of[:, None] < of, 2.0, of[:, None] == of).astype(np.float32)
    second = (weight @ (covariance * earlier)) * weight
    return Prefixes(_running(weight * mean[:, None], blocks), _running(second, blocks))


def _running(terms: Float32, blocks: int) -> Float32:
    """Running sums over the blocks of terms (groups, O, P), from 0 on: shape (groups * O, blocks + 1)."""
    sums = terms.reshape(-1, blocks, terms.shape[-1] // blocks).sum(axis=2, dtype=np.float64).cumsum(axis=1)
    return np.concatenate([np.zeros((len(sums), 1)), sums], axis=1).astype(np.float32)
