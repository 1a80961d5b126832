"""`fn3hw device`: names that every verb takes, and what limits trust in a device."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import check_error

PYTHON = f"{shlex.quote(sys.executable)} -"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FN3HW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def listed(call: Any) -> dict[str, str]:
    document = call("device", "list", "--json").document
    return {entry["name"]: entry["command"] for entry in document["devices"]}


@pytest.mark.parametrize("verb", ["add", "list", "check", "remove"])
def test_every_verb_has_help_and_json(call: Any, verb: str) -> None:
    result = call("device", verb, "--help")
    assert result.status == 0 and "--json" in result.out


def test_a_device_is_added_listed_and_removed(call: Any, home: Path) -> None:
    assert listed(call) == {"local": "local"}
    result = call("device", "add", "pi5", "--command", PYTHON)
    assert result.status == 0 and "fn3hw device check pi5" in result.out
    assert listed(call) == {"local": "local", "pi5": PYTHON}
    assert (home / "devices.json").is_file()
    check_error(call("device", "add", "pi5", "--command", "agent", "--json"), 2, "--replace")
    assert call("device", "add", "pi5", "--command", "agent", "--replace").status == 0
    assert listed(call)["pi5"] == "agent" and "agent" in call("device", "list").out
    assert call("device", "remove", "pi5", "--json").document == {"name": "pi5"}
    assert listed(call) == {"local": "local"}
    check_error(call("device", "remove", "pi5", "--json"), 2, "'pi5'")


def test_check_shows_the_device_and_what_limits_trust(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fn3hw.profiler.trust.UNREST", -1.0)  # so that there is a finding on any machine
    call("device", "add", "board", "--command", PYTHON)
    result = call("device", "check", "board", "--json")
    assert result.status == 0, result.err
    document = result.document
    assert (document["name"], document["command"]) == ("board", PYTHON)
    assert {"cpu_model", "cores", "memory_mib", "onnxruntime", "emulated"} <= document["device"].keys()
    assert {"providers", "load_average", "free_disk_mib"} <= document["state"].keys()
    assert document["probe"]["spread"] >= 0 and document["probe"]["samples"] >= 20
    assert "varies by" in document["findings"][-1]["what"] and document["findings"][-1]["fix"]


def test_check_for_people_names_processor_runtime_and_fix(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fn3hw.profiler.trust.UNREST", -1.0)
    result = call("device", "check")
    assert result.status == 0
    assert all(text in result.out for text in ("this machine", "ONNX Runtime", "CPUExecutionProvider", "Close other"))


def test_a_device_that_is_not_reached_ends_with_4(call: Any) -> None:
    call("device", "add", "away", "--command", "sh -c 'exit 7'")
    check_error(call("device", "check", "away", "--json"), 4, "'away'", "status 7")


def test_an_unknown_device_ends_with_2(call: Any) -> None:
    check_error(call("device", "check", "pi5", "--json"), 2, "'pi5'", "local", "fn3hw device add pi5")
