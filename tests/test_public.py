"""The public names. A change here is a change of the API: it belongs in CHANGELOG.md."""

from __future__ import annotations

import fn3hw


def test_public_names_are_pinned() -> None:
    classes = ["Atlas", "CostModel", "Data", "Gate", "Nested", "Point", "Profile", "Recipe", "Run", "SearchSpace"]
    functions = ["fit_cost", "load_data", "nest", "profile", "search", "train"]
    assert sorted(fn3hw.__all__) == sorted([*classes, "Subnet", *functions, "cost", "deploy", "errors", "space"])


def test_public_names_exist() -> None:
    assert [name for name in fn3hw.__all__ if not hasattr(fn3hw, name)] == []
