from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from fn3hw.cost import CountRegressor, Rule

POWERS = st.sampled_from([1, 2, 4, 8, 16])


@parametrize_with_checks([CountRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def counts(n: int, columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.integers(24, 193, size=(n, columns))
    # As the sampling plan does: half of the counts are multiples of larger powers of two.
    return np.where(rng.random((n, columns)) < 0.5, (x // 16) * 16, x).astype(float)


@settings(max_examples=20, deadline=None)
@given(step=POWERS, align=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 1000))
def test_known_rules_are_found(step: int, align: int, seed: int):
    X = counts(60, 1, seed)
    # Without counts that are multiples of this alignment and of no larger one, the data cannot tell them apart.
    assume((X[:, 0] % (2 * align) == align).sum() >= 2)
    off = X[:, 0] % align != 0
    y = 2.0 + 0.05 * step * np.ceil(X[:, 0] / step) + off * (1.0 + 0.03 * X[:, 0])
    fitted = CountRegressor().fit(X, y)
    assert fitted.loo_error_ < 2e-3
    assert fitted.rules_[0].align == align
    # Off its fast path a device may follow every count; what matters is that new counts are predicted.
    new = counts(40, 1, seed + 1)
    truth = 2.0 + 0.05 * step * np.ceil(new[:, 0] / step) + (new[:, 0] % align != 0) * (1.0 + 0.03 * new[:, 0])
    assert np.mean(np.abs(fitted.predict(new) / truth - 1)) < 5e-3


@settings(max_examples=15, deadline=None)
@given(step=POWERS, seed=st.integers(0, 1000))
def test_without_penalty_none_is_found_and_predictions_are_monotone(step: int, seed: int):
    rng = np.random.default_rng(seed)
    X = counts(30, 1, seed)
    y = (3.0 + 0.4 * np.ceil(X[:, 0] / step) * step / 8) * rng.normal(1.0, 0.002, len(X))
    fitted = CountRegressor(align=1).fit(X, y)
    curve = fitted.predict(np.arange(24.0, 193.0)[:, None])
    assert (np.diff(curve) >= -1e-9).all()


def test_two_widths_that_multiply_need_products():
    X = counts(40, 2, 3)
    y = 1.0 + 0.002 * (np.ceil(X / 8) * 8).prod(axis=1)
    with_products = CountRegressor().fit(X, y)
    assert with_products.pairs_ == ((0, 1),)
    assert with_products.rules_ == (Rule(8, 1), Rule(8, 1))
    assert with_products.loo_error_ < 0.1 * CountRegressor(products="none").fit(X, y).loo_error_


def test_columns_may_follow_rules_of_their_own():
    X = counts(80, 2, 4)
    y = 5.0 + 0.5 * np.ceil(X[:, 0] / 16) + 0.2 * np.ceil(X[:, 1] / 4) + 2.0 * (X[:, 1] % 2 != 0)
    own = CountRegressor(shared=False, products="none").fit(X, y)
    assert own.loo_error_ < CountRegressor(products="none").fit(X, y).loo_error_
    assert own.rules_[0].step == 16


def test_ten_rows_are_enough():
    X = counts(10, 1, 5)
    y = 2.0 + 0.5 * np.ceil(X[:, 0] / 16) * (1 + 0.5 * (X[:, 0] % 4 != 0))
    assert -cross_val_score(CountRegressor(), X, y, scoring="neg_mean_absolute_percentage_error").mean() < 0.15


def test_given_rules_are_used():
    X = counts(20, 1, 6)
    fitted = CountRegressor(step=32, align=8, alpha=1e-4).fit(X, X[:, 0])
    assert fitted.rules_ == (Rule(32, 8),)
    assert fitted.terms_ == ("1", "steps(x0)", "off(x0)", "off*count(x0)")


@pytest.mark.parametrize(
    ("X", "y"), [([[1], [-2]], [1, 2]), ([[1], [2]], [1, 0]), ([[1], [np.nan]], [1, 2]), ([[1]], [1])]
)
def test_bad_tables_are_refused(X, y):
    with pytest.raises(ValueError):
        CountRegressor().fit(X, y)


def test_an_unknown_choice_of_products_is_refused():
    with pytest.raises(ValueError, match="products"):
        CountRegressor(products="some").fit([[1], [2]], [1, 2])
