from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fn3hw.cli.console import Console
from fn3hw.cli.runs import OpenRun
from fn3hw.errors import RunError


def opened(folder: Path) -> OpenRun:
    return OpenRun(folder, Console(as_json=True))


def test_a_network_without_a_run_is_opened_by_the_name_of_its_folder(made: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("supernet.onnx", "space.json"):
        shutil.copy(made / name, bare)
    assert opened(bare).network_name == "bare"
    assert opened(made).network_name == opened(made).run.recipe.network.name != made.name
    assert opened(bare).supernet.digest == opened(made).supernet.digest
    with pytest.raises(RunError, match=r"run\.toml"):
        _ = opened(bare).data


def test_a_folder_of_neither_says_what_it_lacks(made: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        for read in ("network_name", "supernet"):
            with pytest.raises(RunError, match=r"run\.toml"):
                getattr(opened(folder), read)
    shutil.copy(made / "run.toml", tmp_path)
    with pytest.raises(RunError, match="not trained to its end"):
        _ = opened(tmp_path).supernet
