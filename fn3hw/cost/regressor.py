"""`CountRegressor`: finds from a table of counts and costs the rules that a device follows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from fn3hw.cost.basis import NEGLIGIBLE, FloatArray, Rule, all_pairs, candidates, design, names
from fn3hw.cost.solve import Fit, fit_relative

ALPHAS = (1e-5, 1e-3)
"""Ridges that ``alpha="auto"`` chooses from."""

_AUTO_PRODUCT_COLUMNS = 3
_OWN_PAYS = 0.02
_SWEEPS = 3
_EARN = 4.0
"""A condition, such as an alignment, has to lower the error by this share of one subnet's."""


class CountRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Cost as a function of block counts, with the steps and the alignment of the device found from the data.

    The cost is a sum of non-negative multiples of: 1; per column the staircase ``ceil(count / step)``, whether the
    count is no multiple of ``align``, and that times the count; and products of these between columns, for an operation
    whose input and output widths both vary. Coefficients minimise the squared *relative* error with a small ridge;
    steps, alignments and products are chosen by leave-one-out error. All are powers of two within the data's range.

    Args:
        step: width of a stair, or ``"auto"``.
        align: multiple that the fast path asks for, 1 for none, or ``"auto"``.
        shared: all columns follow the same rule; else each is given its own where that lowers the error.
        products: pairs of columns whose product matters, ``"all"``, ``"none"``, or ``"auto"``: all pairs of up to three
            columns, where that lowers the error.
        alpha: ridge, relative to columns of unit root mean square, or ``"auto"``.

    Attributes:
        rules_: the `Rule` of each column.
        pairs_: the pairs of columns with products.
        coef_: coefficients of the terms, shape (p,).
        terms_: their names.
        loo_error_: mean absolute relative leave-one-out error.

    Example:
        >>> X = np.arange(1, 61).reshape(-1, 1)
        >>> y = 2.0 + 0.5 * np.ceil(X[:, 0] / 8)
        >>> str(CountRegressor().fit(X, y).rules_[0])
        'steps of 8, no alignment'
    """

    def __init__(
        self,
        *,
        step: int | str = "auto",
        align: int | str = "auto",
        shared: bool = True,
        products: str | Sequence[tuple[int, int]] = "auto",
        alpha: float | str = "auto",
    ) -> None:
        self.step = step
        self.align = align
        self.shared = shared
        self.products = products
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> CountRegressor:
        """Find the rules and fit the coefficients.

        Args:
            X: counts of shape (n, k), not negative.
            y: costs of shape (n,), positive.

        Raises:
            ValueError: a count is negative, a cost is not positive, or a value is not finite.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        y = np.asarray(y, dtype=np.float64)
        if (X < 0).any():
            raise ValueError("Negative values in data passed to CountRegressor: X holds counts.")
        if (y <= 0).any():
            raise ValueError("Costs must be positive: the error that is minimised is relative to them.")
        rules, pairs, alpha = self._choose(X, y)
        fitted = fit_relative(design(X, rules, pairs), y, alpha=alpha)
        self.rules_, self.pairs_, self.alpha_ = rules, pairs, alpha
        self.coef_, self.loo_residuals_, self.loo_error_ = fitted.coef, fitted.loo, fitted.error
        columns = getattr(self, "feature_names_in_", [f"x{j}" for j in range(X.shape[1])])
        self.terms_ = tuple(names(columns, pairs))
        return self

    def predict(self, X: Any) -> FloatArray:
        """Costs of shape (n,) of counts of shape (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        result: FloatArray = design(X, self.rules_, self.pairs_) @ self.coef_
        return result

    def _choose(self, X: FloatArray, y: FloatArray) -> tuple[tuple[Rule, ...], tuple[tuple[int, int], ...], float]:
        alphas = ALPHAS if isinstance(self.alpha, str) else (float(self.alpha),)
        options = self._options(X)
        k, best, best_score = X.shape[1], None, np.inf
        for alpha, pairs, rule in product(alphas, self._pair_options(k), options):
            score = self._score(X, y, (rule,) * k, pairs, alpha)
            if score < best_score:
                best, best_score = ((rule,) * k, pairs, alpha), score
        assert best is not None
        if self.shared or k == 1:
            return best
        rules, pairs, alpha = list(best[0]), best[1], best[2]
        for _ in range(_SWEEPS):
            before = list(rules)
            for j, rule in product(range(k), options):
                score = self._score(X, y, [*rules[:j], rule, *rules[j + 1 :]], pairs, alpha)
                if score < best_score * (1 - _OWN_PAYS):
                    rules[j], best_score = rule, score
            if rules == before:
                break
        return tuple(rules), pairs, alpha

    def _options(self, X: FloatArray) -> list[Rule]:
        found = candidates(X)
        if not isinstance(self.step, str):
            found = list(dict.fromkeys(Rule(int(self.step), rule.align) for rule in found))
        if not isinstance(self.align, str):
            found = list(dict.fromkeys(Rule(rule.step, int(self.align)) for rule in found))
        return found

    def _pair_options(self, k: int) -> list[tuple[tuple[int, int], ...]]:
        if not isinstance(self.products, str):
            return [tuple((int(a), int(b)) for a, b in self.products)]
        every = all_pairs(k)
        if self.products not in ("all", "none", "auto"):
            raise ValueError(f"products is 'all', 'none', 'auto' or pairs of columns, not {self.products!r}.")
        if self.products == "all":
            return [every]
        return [(), every] if self.products == "auto" and 1 < k <= _AUTO_PRODUCT_COLUMNS else [()]

    @staticmethod
    def _score(
        X: FloatArray, y: FloatArray, rules: Sequence[Rule], pairs: Sequence[tuple[int, int]], alpha: float
    ) -> float:
        fitted: Fit = fit_relative(design(X, rules, pairs), y, alpha=alpha)
        conditions = float(np.mean([rule.align > 1 for rule in rules])) + bool(pairs)
        return (fitted.error + NEGLIGIBLE) * (1 + _EARN / len(y) * conditions)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.target_tags.positive_only = True
        tags.target_tags.required = True
        # Costs grow with counts by nature; scikit-learn's test data, where they also fall, is not what this is for.
        tags.regressor_tags.poor_score = True
        return tags
