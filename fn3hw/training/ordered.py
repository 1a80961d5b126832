"""Ordered dropout (paper, sec. 2.2): which subnets a training step runs, and what each learns from.

One index per gate and mini-batch, uniform over the allowed range; the blocks behind it are dropped. Options of the
recipe add the full and the smallest subnet to each step (the sandwich rule) and let subnets learn from the full
network's soft outputs (in-place distillation), both from US-Net (Yu and Huang, 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fn3hw.space.subnet import SearchSpace, Subnet
from fn3hw.training.recipe import Sampling


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of a step.

    Args:
        subnet: what is trained.
        from_labels: learn from the labels; otherwise from the soft outputs of the step's first pass.
        is_full: the full network, trained for its own sake.
    """

    subnet: Subnet
    from_labels: bool
    is_full: bool


def step_passes(space: SearchSpace, sampling: Sampling, *, seed: int, step: int) -> Iterator[Pass]:
    """The passes of one training step, the full network first.

    The draw depends on (seed, step) alone: a resumed training, and every process of a distributed one, draws the same
    subnets with nothing to store or to send.
    """
    if sampling.trains_full:
        yield Pass(space.full(), from_labels=True, is_full=True)
    if not sampling.ordered:
        return
    rng = np.random.default_rng((seed, step))
    from_labels = not sampling.distill
    if sampling.smallest:
        yield Pass(space.smallest(), from_labels, is_full=False)
    for _ in range(sampling.random):
        yield Pass(sample(space, sampling, rng), from_labels, is_full=False)


def sample(space: SearchSpace, sampling: Sampling, rng: np.random.Generator) -> Subnet:
    """A random ordered subnet: per gate an index uniform over its allowed range, or one share for all gates.

    A gate of a level named in ``sampling.drop`` is sampled with that probability only, and otherwise kept full.
    """
    if sampling.uniform:
        share = rng.random()
        counts = {gate.name: gate.min_kept + round(share * (gate.size - gate.min_kept)) for gate in space}
    else:
        counts = dict(space.random(rng, prefix=True).counts)
    for gate in space:
        if gate.level in sampling.drop and rng.random() >= sampling.drop[gate.level]:
            counts[gate.name] = gate.size
    return space.from_counts(counts)
