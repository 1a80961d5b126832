"""``fn3hw profile --diff`` and ``--show``, on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fn3hw.cli import main as command_line
from tests.cost.profiles import DEVICE, as_profile
from tests.cost.synthetic import Machine, measure, subnets

FAKE = measure(Machine(), subnets(4, 0))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two profiles of one network; the second one is emulated and lacks a feature."""
    second = {**DEVICE, "emulated": True, "cpu_features": ["avx"]}
    as_profile(FAKE).write(tmp_path / "a.json")
    as_profile(FAKE, device=second, verdict="noisy", reasons=["Wide."]).write(tmp_path / "b.json")
    return str(tmp_path / "a.json"), str(tmp_path / "b.json")


def test_the_difference_as_json_and_for_people(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["profile", "--diff", *files, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"device", "settings", "noise", "reference_latency_ms", "gates"} <= document.keys()
    assert document["device"]["cpu_features"] == [["avx", "fma"], ["avx"]]
    assert document["noise"]["verdict"] == ["stable", "noisy"]
    assert {gate["gate"] for gate in document["gates"]} == {"a", "b", "c", "d", "e", "stage"}
    assert all(gate["within_uncertainty"] and abs(gate["all"]["difference"]) < 1e-9 for gate in document["gates"])
    assert command_line.run(["profile", "--diff", *files]) == 0
    said = capsys.readouterr().out
    cells = {tuple(cell.strip() for cell in line.split("│")[1:-1]) for line in said.splitlines() if "│" in line}
    assert ("cpu_features", "fma", "nothing else") in cells
    assert ("full network, ms", "5.000", "emulated") in cells
    assert any(row[:2] == ("d", "96/192") and row[-1] == "no" for row in cells)
    assert any(row[:2] == ("", "48/192") and row[-2] == "emulated" for row in cells)
    assert "None of 6 gates differs" in said


def test_a_noisy_profile_may_be_looked_at(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["profile", "--show", files[1], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["reasons"], document["path"]) == ("noisy", ["Wide."], files[1])
    assert {"n_measured", "holdout", "noise", "rules"} <= document.keys() and "error" not in document
