from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fn3hw.cli import main as command_line

from .conftest import check_error

FEW = ("--method", "random", "--method", "fn3hw", "--seeds", 2, "--evaluations", 6, "--images", 40)


def compare(run: Path, *arguments: object) -> tuple[object, ...]:
    return ("compare", run, "--profile", run / "profile.json", *arguments, "--json")


def test_a_comparison_says_what_its_contract_says(call: Any, own: Path) -> None:
    document = call(*compare(own, *FEW)).document
    assert [method["name"] for method in document["methods"]] == ["fn3hw", "random"]
    for method in document["methods"]:
        assert method["evaluations"] <= 6 and method["seconds"] > 0
        low, high = method["hypervolume_ci"]
        assert low <= method["hypervolume_mean"] <= high
        assert len(method["accuracy_at_budget"]) == 10
    assert all(Path(path).is_file() for path in document["report"].values())
    again = call(*compare(own, *FEW)).document
    assert again["methods"] == document["methods"]


def test_wrong_wishes_are_refused_and_nothing_is_written(call: Any, own: Path, made: Path) -> None:
    before = sorted(own.rglob("*"))
    check_error(call(*compare(own, "--method", "randem")), 2, "randem", "random")
    check_error(call(*compare(own, *FEW, "--latency-ms", 1e-6)), 3, "smallest")
    check_error(call(*compare(own, *FEW, "--latency-ms", -1)), 2, "positive")
    check_error(call(*compare(own, *FEW, "--latency-ms", "soon")), 2, "valid number")
    check_error(call("compare", own, "--profile", own / "nowhere.json", "--json"), 2, "nowhere.json")
    assert sorted(own.rglob("*")) == before


def test_a_missing_extra_is_named(call: Any, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("fn3hw.baselines.compare")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "moocore", None)
    check_error(call(*compare(own, *FEW)), 2, "moocore", "pip install")


def test_compare_is_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["compare", "--help"]) == 0
    assert "--evaluations" in capsys.readouterr().out
