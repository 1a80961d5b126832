"""Named devices: a small file of the user's that says which command reaches which device.

A name works wherever a device is asked for. `command_of` is the one place where names become commands.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fn3hw.errors import InputError, UnknownName
from fn3hw.space.files import only_writer, write_text

LOCAL: Final = "local"
NOBODY: Final = "none"
SCHEMA: Final = "fn3hw.devices/1"
LOCK_S: Final = 10.0
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_EXAMPLE: Final = "ssh pi@pi5.local python3 -"


def home() -> Path:
    """The user's configuration folder: ``$FN3HW_HOME``, ``$XDG_CONFIG_HOME/fn3hw`` or ``~/.config/fn3hw``."""
    if own := os.environ.get("FN3HW_HOME"):
        return Path(own)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fn3hw"


def parse(command: str) -> list[str]:
    """The words of a device's command.

    Raises:
        InputError: it is empty, or its quotes do not match.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"The device command {command!r} cannot be read: {error}.") from error
    if not words:
        raise InputError("The device command is empty.", hint=f'Use "local", or a command such as "{_EXAMPLE}".')
    return words


def command_of(device: str) -> str:
    """The command that reaches a device: that of a name, or the given command itself.

    A name goes before a program of the same name.

    Raises:
        InputError: a single word that is neither a name nor a program, or the file of names is damaged.
    """
    if device == LOCAL or not _NAME.fullmatch(device):
        return device
    known = Registry().commands()
    if device in known or shutil.which(device):
        return known.get(device, device)
    error = UnknownName("device", device, known)
    error.hint += f' Give it a command: fn3hw device add {device} --command "{_EXAMPLE}"'
    raise error


@dataclass(frozen=True, slots=True)
class Registry:
    """The names of devices and their commands, in one JSON file that is replaced as a whole.

    ``"local"``, this machine, is always there.

    Args:
        path: the file; by default ``devices.json`` in the user's configuration folder.
    """

    path: Path = field(default_factory=lambda: home() / "devices.json")

    def commands(self) -> dict[str, str]:
        """The command of each device by name, ``"local"`` first.

        Raises:
            InputError: the file is damaged, or from a newer version.
        """
        return {LOCAL: LOCAL, **self._read()}

    def add(self, name: str, command: str, *, replace: bool = False) -> None:
        """Give a name to a command; nothing is connected.

        Raises:
            InputError: the name cannot be given, the command cannot be read, or the name has another command already
                and is not to be replaced.
        """
        if name in (LOCAL, NOBODY):
            raise InputError(f"{name!r} has a meaning of its own and cannot be added.", hint="Choose another name.")
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} is no name for a device.", hint="Use letters, digits, dots, dashes and underscores."
            )
        parse(command)
        with only_writer(self.path, wait_s=LOCK_S):
            known = self._read()
            if not replace and known.get(name, command) != command:
                raise InputError(
                    f"A device {name!r} is known already, by the command {known[name]!r}.",
                    hint="Choose another name, or give it the new command with --replace.",
                )
            self._write({**known, name: command})

    def remove(self, name: str) -> None:
        """Forget a name.

        Raises:
            InputError: no device is called so, or it is ``"local"``.
        """
        if name == LOCAL:
            raise InputError("'local' is this machine and cannot be removed.")
        with only_writer(self.path, wait_s=LOCK_S):
            known = self._read()
            if name not in known:
                raise UnknownName("device", name, known)
            del known[name]
            self._write(known)

    def _read(self) -> dict[str, str]:
        try:
            document = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(f"Cannot read {self.path}: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from error
        schema, devices = (document.get("schema"), document.get("devices")) if isinstance(document, dict) else (0, 0)
        if isinstance(schema, str) and schema != SCHEMA:
            raise InputError(f"{self.path} has schema {schema}; this fn3hw reads {SCHEMA}.", hint="Upgrade fn3hw.")
        if schema != SCHEMA or not isinstance(devices, dict):
            raise self._damaged("it is no list of devices")
        if odd := [name for name, command in devices.items() if not isinstance(command, str)]:
            raise self._damaged(f"the command of {odd[0]!r} is no text")
        return devices

    def _write(self, devices: dict[str, str]) -> None:
        write_text(self.path, json.dumps({"schema": SCHEMA, "devices": devices}, indent=1, sort_keys=True) + "\n")

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"{self.path}, which holds the names of devices, is damaged: {why}.",
            hint=f"Mend it, or move it away and add the devices again: mv {self.path} {self.path}.old",
        )
