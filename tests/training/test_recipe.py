from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fn3hw.errors import InputError, UnknownName
from fn3hw.space import networks
from fn3hw.training import Recipe, packaged_recipes
from fn3hw.training.loading import names
from fn3hw.training.toml import dumps
from tests.training.conftest import make_recipe


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_read_back_from_their_settings_and_name_things_that_exist(name: str) -> None:
    recipe = Recipe.load(name)
    assert Recipe.parse(dumps(recipe.settings())) == recipe
    assert recipe.data.name in names() and recipe.network.name in networks.names()


def test_a_recipe_is_read_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(dumps(make_recipe(epochs=7).settings()))
    assert Recipe.load(path).epochs == 7


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'fashion-mnist'"):
        Recipe.load("fashion_mnist")


def test_changes_to_a_section_leave_its_other_fields() -> None:
    changed = make_recipe().replace(sampling={"distill": False})
    assert changed.sampling.full and not changed.sampling.distill


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "'epoch'; did you mean 'epochs'"),
        ({"sampling": {"ordred": True}}, r"'sampling.ordred'; did you mean 'sampling.ordered'"),
        ({"network": {"levels": ["chanel"]}}, "'chanel'; did you mean 'channel'"),
        ({"network": {"keep": {"layers": 0.5}}}, "'layers'; did you mean 'layer'"),
        ({"sampling": {"drop": {"laier": 0.5}}}, "'laier'; did you mean 'layer'"),
        ({"network": {"keep": {"channel": 1.5}}}, "network.keep.channel: .*not 1.5"),
        ({"network": {"levels": []}}, "network.levels"),
        ({"epochs": 0}, "epochs: .*not 0"),
        ({"learning_rate": float("nan")}, "learning_rate: .*not nan"),
        ({"learning_rate": -1.0}, "learning_rate: .*not -1"),
        ({"optimiser": "rmsprop"}, "optimiser: .*'rmsprop'"),
        ({"sampling": {"full": False}}, "distill needs full"),
        ({"sampling": {"random": 0}}, "random >= 1"),
        ({"data": {"search": 0}}, "data.search"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_recipe(**changes)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InputError, match="data: Field required"):
        Recipe.of({"network": {"name": "mlp"}})


def test_what_is_no_toml_or_no_text_is_refused(tmp_path: Path) -> None:
    for name, content in {"a.toml": b"epochs = ", "b.toml": b"\xff\xfe"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            Recipe.load(tmp_path / name)
