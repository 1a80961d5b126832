from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.errors import InputError
from fn3hw.space.quantizer import Quantizer, Schedule

PAPER = Schedule()
FP32 = Schedule(full_precision=True)
schedules = st.builds(
    lambda levels, full: Schedule(tuple(sorted(levels)), full),
    st.sets(st.integers(1, 127), min_size=1, max_size=6),
    st.booleans(),
)


def weights(seed: int, n: int = 200) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(n).astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(schedules, st.integers(0, 999))
def test_every_level_set_contains_the_smaller_one_and_a_step_only_raises_magnitudes(
    schedule: Schedule, seed: int
) -> None:
    w = weights(seed)
    quantizer = Quantizer(schedule, [w])
    before, allowed = torch.zeros_like(w), {0}
    for count in range(1, len(schedule.levels) + 1):
        found = quantizer.integers(w, range(count)).float()
        allowed |= {schedule.levels[count - 1], -schedule.levels[count - 1]}
        assert set(found.int().tolist()) <= allowed
        assert (found.abs() >= before.abs()).all() and (found * before >= 0).all()
        # What was below the outermost level stays as it is: adding a block adds to the largest weights alone.
        changed = found != before
        assert (before[changed].abs() == (schedule.levels[count - 2] if count > 1 else 0)).all()
        before = found
    largest = quantizer(w, range(schedule.size)) if schedule.full_precision else None
    assert largest is None or torch.equal(largest, w)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 999), st.sets(st.integers(0, 3)))
def test_blocks_add_up_as_in_equation_5(seed: int, blocks: set[int]) -> None:
    w = weights(seed)
    quantizer = Quantizer(PAPER, [w])
    tau, total, heights = quantizer.tau, torch.zeros_like(w), 0.0
    for block in blocks:
        for z in (PAPER.thresholds[block], -PAPER.thresholds[block]):
            total = total + PAPER.heights[block] * (tau * w - z > 0).float()
            heights += PAPER.heights[block]
    assert torch.allclose(quantizer(w, blocks), (total - heights / 2) / tau, atol=1e-5)


def test_settings_and_the_first_factor_are_the_papers() -> None:
    assert [PAPER.label(count) for count in range(1, 5)] == ["2 bits (±1)", "3 bits (±2)", "3 bits (±4)", "4 bits (±8)"]
    assert (
        Schedule.of_sets([{-1, 0, 1}, range(-2, 3), {-4, -2, -1, 0, 1, 2, 4}, {*range(-2, 3), 4, -4, 8, -8}]) == PAPER
    )
    w = weights(0)
    assert Quantizer(PAPER, [w]).tau == pytest.approx(5 * 8 / (4 * float(w.abs().max())))
    assert FP32.size == 5 and FP32.label(5) == "fp32"


@pytest.mark.parametrize("blocks", [(0,), (0, 1, 2), (0, 1, 2, 3)])
def test_the_gradient_passes_straight_through_inside(blocks: tuple[int, ...]) -> None:
    w = weights(1).requires_grad_()
    quantizer = Quantizer(PAPER, [w])
    quantizer(w, blocks).sum().backward()
    inside = (w.detach() / quantizer.step.detach()).abs() <= PAPER.largest(blocks)
    assert torch.equal(w.grad, inside.float()) and 0 < int(inside.sum()) <= len(w)
    assert quantizer.log_step.grad is not None and float(quantizer.log_step.grad) != 0.0


def test_soft_steps_become_hard_ones_and_learn() -> None:
    w = weights(2).requires_grad_()
    quantizer = Quantizer(PAPER, [w]).train()
    hard = quantizer(w, range(4)).detach()
    gaps = []
    for temperature in (2.0, 20.0, 2000.0):
        quantizer.temperature = temperature
        gaps.append((quantizer(w, range(4)) - hard).abs().mean().item())
    assert gaps[0] > gaps[1] > gaps[2] < 0.01
    quantizer.temperature = 2.0
    quantizer(w, range(2)).sum().backward()
    assert bool(w.grad.any()) and torch.equal(quantizer.eval()(w, range(4)), hard)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (torch.zeros(4), "all of its weights are zero"),
        (torch.full((4,), 0.5), "all of its weights are 0.5"),
        (torch.tensor([1.0, float("nan")]), "not finite"),
    ],
)
def test_weights_that_cannot_be_quantized(values: torch.Tensor, reason: str) -> None:
    with pytest.raises(InputError, match=f"stem.*{reason}"):
        Quantizer(PAPER, [values], name="stem")


@pytest.mark.parametrize("levels", [(), (0, 1), (2, 1), (1, 1), (1, 128)])
def test_levels_that_are_not_nested(levels: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="not nested"):
        Schedule(levels)


@pytest.mark.parametrize(
    "sets", [[{-1, 0, 1}, {-3, -2, 0, 2, 3}], [{-1, 1}], [{0, 1}], [{-1, 0, 1}, {-4, -2, -1, 0, 1, 2, 4}]]
)
def test_level_sets_that_do_not_nest(sets: list[set[int]]) -> None:
    with pytest.raises(InputError, match="does not nest"):
        Schedule.of_sets(sets)


def test_full_precision_has_no_integers() -> None:
    with pytest.raises(InputError, match="fp32"):
        Quantizer(FP32, [weights(0)]).integers(weights(0), range(5))


@pytest.mark.parametrize("rate", [0.1, 10.0])
def test_a_step_size_stays_positive_at_any_learning_rate(rate: float) -> None:
    weight = torch.randn(64, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    quantizer = Quantizer(PAPER, [weight])
    optimiser = torch.optim.SGD(quantizer.parameters(), lr=rate)
    for _ in range(20):
        optimiser.zero_grad()
        quantizer(weight, range(PAPER.size)).sum().backward()
        optimiser.step()
    assert quantizer.step.item() > 0
