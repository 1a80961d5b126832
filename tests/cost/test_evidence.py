from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.cost.evidence import bent, straightened


@given(st.lists(st.floats(1e-4, 1e4), min_size=1), st.floats(0, 100))
def test_what_is_bent_can_be_straightened(sums: list[float], bend: float) -> None:
    straight = np.array(sorted(sums))
    curved = bent(straight, bend)
    assert straightened(curved, bend) == pytest.approx(straight, rel=1e-6)
    assert (curved >= straight).all()
    assert (np.diff(curved) >= 0).all()


@given(st.floats(-10, 0), st.floats(0, 100))
def test_what_is_not_above_zero_stays_as_it_is(ms: float, bend: float) -> None:
    assert bent(np.array([ms]), bend)[0] == ms == straightened(np.array([ms]), bend)[0]
