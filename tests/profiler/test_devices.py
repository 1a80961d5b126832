from __future__ import annotations

import json
import shlex
import sys
import threading
from pathlib import Path

import pytest

from fn3hw.errors import InputError, UnknownName
from fn3hw.profiler import devices, link
from fn3hw.profiler.device import connect
from fn3hw.profiler.devices import Registry, command_of
from fn3hw.space.files import only_writer

BOARD = "ssh pi@board python3 -"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The user's registry, which `command_of` reads too."""
    monkeypatch.setenv("FN3HW_HOME", str(tmp_path / "home"))
    return Registry()


def test_the_folder_is_the_users_own_or_that_of_the_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN3HW_HOME", "/a")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert devices.home() == Path("/a")
    monkeypatch.delenv("FN3HW_HOME")
    assert devices.home() == Path("/b/fn3hw")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert devices.home() == Path("/c/.config/fn3hw")


def test_names_are_kept_until_they_are_removed(registry: Registry) -> None:
    assert registry.commands() == {"local": "local"} and not registry.path.exists()
    registry.add("pi5", BOARD)
    registry.add("a.b_c-1", "agent")
    registry.add("pi5", BOARD)  # again the same is no conflict
    assert Registry().commands() == {"local": "local", "a.b_c-1": "agent", "pi5": BOARD}
    registry.remove("pi5")
    assert "pi5" not in registry.commands()
    with pytest.raises(UnknownName, match="'pi5'"):
        registry.remove("pi5")


def test_another_command_needs_to_be_asked_for(registry: Registry) -> None:
    registry.add("pi5", BOARD)
    with pytest.raises(InputError, match="board") as caught:
        registry.add("pi5", "ssh pi@other python3 -")
    assert "--replace" in caught.value.hint and registry.commands()["pi5"] == BOARD
    registry.add("pi5", "ssh pi@other python3 -", replace=True)
    assert registry.commands()["pi5"] == "ssh pi@other python3 -"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *((name, BOARD) for name in ("local", "none", "", "a b", "a/b", "ä", "x\n")),
        *(("x", command) for command in ("", "  ", "ssh 'open")),
    ],
)
def test_what_cannot_be_added_changes_nothing(registry: Registry, name: str, command: str) -> None:
    with pytest.raises(InputError):
        registry.add(name, command)
    assert not registry.path.exists()


def test_local_cannot_be_removed(registry: Registry) -> None:
    with pytest.raises(InputError, match="cannot be removed"):
        registry.remove("local")


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"schema": "fn3hw.devices/1"}', '{"schema": "fn3hw.devices/1", "devices": ["pi5"]}'),
        '{"schema": "fn3hw.devices/1", "devices": {"pi5": 3}}',
        '{"schema": "fn3hw.devices/2", "devices": {}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_named_and_left_as_it_is(registry: Registry, content: str | bytes) -> None:
    before = content if isinstance(content, bytes) else content.encode()
    registry.path.parent.mkdir()
    registry.path.write_bytes(before)
    for use in (registry.commands, lambda: registry.add("x", BOARD), lambda: registry.remove("x")):
        with pytest.raises(InputError, match=r"devices\.json") as caught:
            use()
        assert caught.value.hint
    assert registry.path.read_bytes() == before
    assert command_of("local") == "local" and command_of(BOARD) == BOARD  # these need no names


def test_programs_that_add_at_the_same_time_lose_nothing(registry: Registry) -> None:
    def add(number: int) -> None:
        registry.add(f"board{number}", BOARD)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.commands()) == 1 + 8
    assert {path.name for path in registry.path.parent.iterdir()} == {"devices.json", "devices.json.lock"}


def test_a_file_that_stays_locked_is_given_up(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "LOCK_S", 0.05)
    with only_writer(registry.path), pytest.raises(InputError, match="in use"):
        registry.add("pi5", BOARD)


# ------------------------------------------------------------------------------------------ names as devices


def test_a_name_is_reached_by_its_command(registry: Registry) -> None:
    python = shlex.quote(sys.executable)
    registry.add("board", f"{python} -")
    assert link.resolve("board") == link.resolve(f"{python} -")
    with connect("board") as session:
        assert session.device.command == f"{python} -"


def test_a_name_goes_before_a_program(registry: Registry) -> None:
    assert command_of("sh") == "sh"
    registry.add("sh", BOARD)
    assert command_of("sh") == BOARD


def test_a_word_that_is_neither_name_nor_program_lists_the_names(registry: Registry) -> None:
    registry.add("pi5", BOARD)
    with pytest.raises(UnknownName, match="did you mean 'pi5'") as caught:
        connect("pi4")
    assert all(part in caught.value.hint for part in ("local", "pi5", "fn3hw device add pi4"))


def test_the_file_is_json_that_people_can_mend(registry: Registry) -> None:
    registry.add("pi5", BOARD)
    assert json.loads(registry.path.read_text()) == {"schema": devices.SCHEMA, "devices": {"pi5": BOARD}}
