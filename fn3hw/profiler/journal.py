"""What was measured so far, one line each, so that an interrupted profile goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fn3hw.errors import ProfileError
from fn3hw.profiler.device import differing
from fn3hw.profiler.measuring import Round
from fn3hw.space.files import append_line

SCHEMA = "fn3hw.journal/1"


class Journal:
    """Rounds and memory of subnets; on disk too where it has a path.

    Args:
        path: the journal file, or None to keep nothing.
        belongs_to: what every line depends on: device, network, settings. A journal of anything else is refused.

    Raises:
        ProfileError: the file is no journal, or belongs to something else.
    """

    def __init__(self, path: Path | str | None, belongs_to: Mapping[str, Any]) -> None:
        self.rounds: list[Round] = []
        self.details: dict[str, dict[str, Any]] = {}
        self._path = Path(path) if path is not None else None
        self._head = {"schema": SCHEMA, **json.loads(json.dumps(belongs_to))}
        if self._path is not None and self._path.exists() and self._path.stat().st_size:
            self._read(self._path)
        else:
            self._write(self._head)

    def add_round(self, one: Round) -> None:
        """Keep a finished round."""
        self._write({"kind": "round", **one.to_json()})
        self.rounds.append(one)

    def add_details(self, subnet: str, details: Mapping[str, Any]) -> None:
        """Keep what was measured of a subnet apart from rounds, or from all of them: memory, size, kernel times."""
        self._write({"kind": "details", "subnet": subnet, "details": dict(details)})
        self.details[subnet] = dict(details)

    def remove(self) -> None:
        """Delete the file: the profile is written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        lines = path.read_text(errors="replace").splitlines()
        head = _parse(lines[0])
        if head is None or head.get("schema") != SCHEMA:
            raise ProfileError(
                f"{path} is no journal of an interrupted profile.", hint=f"Move it away: mv {path} {path}.old"
            )
        if odd := differing(self._head, head):
            raise ProfileError(
                f"{path} was measured with another {', '.join(odd)}; its rounds cannot be mixed with new ones.",
                hint=f"Repeat the earlier command to finish it, or start anew: rm {path}",
            )
        for line in lines[1:]:
            entry = _parse(line)
            if entry is None:
                continue  # torn by a kill: it is measured again
            if entry.pop("kind") == "round":
                self.rounds.append(Round.from_json(entry))
            else:
                self.details[entry["subnet"]] = entry["details"]

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._path is not None:
            append_line(self._path, json.dumps(entry, sort_keys=True, separators=(",", ":")))


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
