from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fn3hw.errors import InputError, UnknownName
from fn3hw.training import Recipe, load_data
from fn3hw.training.recipe import packaged_recipes
from fn3hw.training.run import to_toml

MINIMAL = '[network]\nname = "mlp"\nlevels = ["neuron"]\n[data]\nname = "digits"\n'


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_load(name: str) -> None:
    recipe = Recipe.load(name)
    assert Recipe.parse(to_toml(recipe.model_dump(exclude_none=True))) == recipe


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f"epochs = 3\n{MINIMAL}")
    recipe = Recipe.load(tmp_path / "own.toml")
    assert recipe.epochs == 3 and recipe.network.levels == ("neuron",)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        Recipe.load("digit")
    with pytest.raises(UnknownName, match="did you mean 'fashion-mnist'"):
        load_data("fashion-mnits")
    with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
        Recipe.parse(f"learning_rat = 0.1\n{MINIMAL}")
    with pytest.raises(UnknownName, match=r"did you mean 'sampling\.distill'"):
        Recipe.parse(f"{MINIMAL}[sampling]\ndistil = true\n")
    with pytest.raises(UnknownName, match="did you mean 'neuron'"):
        Recipe.parse(MINIMAL.replace('"neuron"', '"neurons"'))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("epochs = 0\n" + MINIMAL, "epochs"),
        ('epochs = "many"\n' + MINIMAL, "epochs"),
        ("learning_rate = -1.0\n" + MINIMAL, "learning_rate"),
        ("epochs = = 3", "not valid TOML"),
        ('[data]\nname = "digits"\n', "network"),
        (MINIMAL + "[sampling]\ndistill = true\n", "the teacher"),
        (MINIMAL + "[sampling]\nrandom = 0\n", "sampling.random >= 1"),
    ],
)
def test_bad_fields_are_named(toml: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.parse(toml)


values = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text(st.characters(codec="utf-8"))
)
tables = st.recursive(
    st.dictionaries(st.text(min_size=1, max_size=8), values | st.lists(values, max_size=3), max_size=4),
    lambda inner: st.dictionaries(st.text(min_size=1, max_size=8), inner | values, max_size=3),
    max_leaves=6,
)


@given(tables)
def test_settings_read_back_from_toml(table: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table
