from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fn3hw.errors import InputError
from fn3hw.training.toml import dumps

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))


@settings(deadline=None)
@given(st.dictionaries(text, values, max_size=5))
def test_what_is_written_reads_back_equal(document: dict[str, Any]) -> None:
    assert tomllib.loads(dumps(document)) == document


def test_values_without_a_form_in_toml_are_refused() -> None:
    with pytest.raises(InputError, match="None"):
        dumps({"a": None})
