"""The container files, as far as they can be checked without an engine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from fn3hw.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "fn3hw/service/container"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "fn3hw"}
COMMANDS = [service["command"] for service in OURS.values()]
COMMANDS.append(yaml.safe_load(re.findall(r"^CMD (.*)$", DOCKERFILE, re.M)[0]))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_verbs_with_their_options(command: list[str]) -> None:
    verb = typer.main.get_command(app).commands[command[0]]  # type: ignore[attr-defined]
    assert verb.make_context(command[0], command[1:]).params


def test_what_is_built_and_copied_is_there() -> None:
    build = OURS["server"]["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).is_file()
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M):
        assert all((context / source).exists() for source in sources.split())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"'\.\[(.*)\]'", DOCKERFILE)[0].split(",")) <= extras.keys()


def test_mounted_folders_belong_to_the_user_that_writes_there() -> None:
    owned = re.findall(r"install --directory --owner (\S+) (.*)", DOCKERFILE)
    (user,) = re.findall(r"^USER (.*)$", DOCKERFILE, re.M)
    assert {name for name, _ in owned} == {user}
    folders = {folder for _, folders in owned for folder in folders.split()}
    for service in OURS.values():
        named = dict(volume.split(":") for volume in service["volumes"])
        assert named.keys() <= COMPOSE["volumes"].keys() and set(named.values()) <= folders


def test_workers_have_names_and_share_files_and_database() -> None:
    names = [service["command"][service["command"].index("--name") + 1] for service in OURS.values()]
    assert len(set(names)) == len(names) == 2
    assert len({service["environment"]["FN3HW_DATABASE"] for service in OURS.values()}) == 1
    assert len({next(v for v in service["volumes"] if v.endswith(":/files")) for service in OURS.values()}) == 1
