from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fn3hw.errors import InputError, RunError
from fn3hw.training import Run
from tests.training.conftest import make_recipe


def test_a_run_opens_with_the_settings_that_it_was_made_with(tmp_path: Path) -> None:
    recipe = make_recipe(clip_gradient=2.5, sampling={"drop": {"layer": 0.5}})
    Run.create(tmp_path / "run", recipe)
    assert Run.open(tmp_path / "run").recipe == recipe
    assert Run.create(tmp_path / "run", recipe).recipe == recipe


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    Run.create(tmp_path, make_recipe(epochs=3))
    with pytest.raises(RunError, match="epochs was 3, now 4"):
        Run.create(tmp_path, make_recipe(epochs=4))
    assert Run.open(tmp_path).recipe.epochs == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "half written: it has no run.toml"),
        ("epochs = 3\n", "gives no format"),
        ("format = 2\n", "format 2; this fn3hw reads up to 1"),
        ("format = 1\nepochs", "damaged"),
        ("format = 'new'\n", "damaged"),
    ],
)
def test_folders_that_are_no_readable_run_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.toml").write_text(content)
    with pytest.raises(RunError, match=message) as caught:
        Run.open(tmp_path)
    assert caught.value.exit_status == 2 and caught.value.hint


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        Run.open(tmp_path / "none")


def test_a_field_of_the_settings_that_does_not_exist_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path, make_recipe())
    path = run.folder / "run.toml"
    path.write_text(path.read_text().replace("epochs = 3", "epoks = 3"))
    with pytest.raises(InputError, match="'epoks'; did you mean 'epochs'"):
        Run.open(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="is no run folder"):
        Run.create(tmp_path, make_recipe())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunError, match="is no run folder"):
        Run.create(tmp_path / "thesis.tex", make_recipe())


def test_a_folder_left_by_a_kill_in_the_first_write_is_used(tmp_path: Path) -> None:
    (tmp_path / ".run.toml.abc.tmp").write_text("form")
    assert Run.create(tmp_path, make_recipe()).recipe == make_recipe()


def test_weights_read_back_in_any_memory_layout(tmp_path: Path) -> None:
    run = Run.create(tmp_path, make_recipe())
    with pytest.raises(RunError, match="not trained to its end"):
        run.load_weights()
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    run.save_weights({"a.weight": weight, "n": torch.tensor(3)})
    assert run.is_trained and torch.equal(run.load_weights()["a.weight"], weight)


@pytest.mark.parametrize("keep", [0, 5, 40])
def test_cut_weights_are_refused(tmp_path: Path, keep: int) -> None:
    run = Run.create(tmp_path, make_recipe())
    run.save_weights({"a": torch.zeros(100)})
    path = tmp_path / "supernet.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match="damaged"):
        run.load_weights()


def test_a_torn_line_of_history_is_left_out(tmp_path: Path) -> None:
    run = Run.create(tmp_path, make_recipe())
    run.replace_history([{"epoch": 0}, {"epoch": 1}])
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"epo')
    assert run.history() == [{"epoch": 0}, {"epoch": 1}]
    run.replace_history([*run.history(), {"epoch": 2}])
    assert run.history()[-1] == {"epoch": 2}
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[0]) == {"epoch": 0}
