"""The archive: every subnet whose accuracy was ever evaluated for a run, one JSON line each, only ever appended to.

A line is ``{"subnet", "accuracy", "key", "seconds", "search"}``: the subnet's id, top-1 accuracy in percent, the key of
the evaluator, the seconds that the evaluation took and the search that asked for it. Where the search gave the subnet
up after some of the images, ``"images"`` says how many; its accuracy is then an estimate, and serves that search alone.
A kill leaves at most one torn line, which is skipped and evaluated again.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fn3hw.errors import InputError, RunError
from fn3hw.space.files import append_line, only_writer
from fn3hw.space.subnet import SearchSpace, Subnet


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluated subnet.

    Args:
        subnet: what was evaluated.
        accuracy: top-1 in percent.
        seconds: that the evaluation took.
        search: that asked for it.
        images: how many it was given up after, its accuracy being an estimate; None where all were looked at.
    """

    subnet: Subnet
    accuracy: float
    seconds: float
    search: str
    images: int | None = None


class Archive:
    """The evaluations of a run that an evaluator with ``key`` made. Reading needs no lock; writing is for one program.

    Lines that other settings of the same network wrote stay in the file and are left out here.

    Args:
        path: the file; it need not exist yet.
        space: the search space of the network.
        key: `AccuracyEvaluator.key`, ``network:settings``.

    Raises:
        RunError: the file belongs to another network, or cannot be read.
    """

    def __init__(self, path: Path | str, space: SearchSpace, key: str) -> None:
        self.path = Path(path)
        self.space = space
        self.key = key
        self.skipped = 0
        self._open = False
        self._writing = ExitStack()
        self._by_subnet: dict[Subnet, Evaluation] = {}
        self._given_up: dict[tuple[Subnet, str], Evaluation] = {}
        self._began: dict[str, int] = {}
        self._read()

    def __len__(self) -> int:
        return len(self._by_subnet)

    def __contains__(self, subnet: object) -> bool:
        return subnet in self._by_subnet

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The evaluations on all images in the order in which they were made, each subnet once."""
        return tuple(self._by_subnet.values())

    def find(self, subnet: Subnet, search: str | None = None) -> Evaluation | None:
        """The evaluation of a subnet on all images, or else the one that a search gave up, or ``None``."""
        found = self._by_subnet.get(subnet)
        return self._given_up.get((subnet, search)) if found is None and search is not None else found

    def began(self, search: str) -> int:
        """How many of `evaluations` were there when a search began: all, where it has not begun."""
        return self._began.get(search, len(self._by_subnet))

    def append(self, evaluation: Evaluation) -> None:
        """Add one evaluation; the line is on disk when this returns. A subnet that is there already is left as it is.

        Raises:
            InputError: the accuracy is not a number from 0 to 100, or the file cannot be written.
            RunError: the archive was not opened for writing with ``with``.
        """
        if not self._open:
            raise RunError(f"{self.path} is open for reading only.", hint="Append inside `with archive:`.")
        if not (math.isfinite(evaluation.accuracy) and 0 <= evaluation.accuracy <= 100):
            raise InputError(
                f"The accuracy of subnet {evaluation.subnet} is {evaluation.accuracy}, not a percentage from 0 to 100.",
                hint="Check the network and the data; what was evaluated before is kept.",
            )
        if self.find(evaluation.subnet, evaluation.search if evaluation.images else None) is not None:
            return
        line = {
            "subnet": evaluation.subnet.id,
            "accuracy": evaluation.accuracy,
            "key": self.key,
            "seconds": round(evaluation.seconds, 4),
            "search": evaluation.search,
            **({"images": evaluation.images} if evaluation.images else {}),
        }
        append_line(self.path, json.dumps(line))
        self._remember(evaluation)

    def __enter__(self) -> Archive:
        """Open for writing, as the only writer, and read what was added since.

        Raises:
            RunError: another program writes to this archive.
        """
        self._writing.enter_context(only_writer(self.path))
        self._open = True
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._writing.close()

    def _read(self) -> None:
        self._by_subnet.clear()
        self._given_up.clear()
        self._began.clear()
        self.skipped = 0
        try:
            text = self.path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        for line in text.splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            subnet_id, key, accuracy = str(entry["subnet"]), str(entry["key"]), float(entry["accuracy"])
            seconds, search = float(entry.get("seconds", 0.0)), str(entry.get("search", ""))
            images = int(entry["images"]) if "images" in entry else None
        except (ValueError, TypeError, KeyError, AttributeError):
            self.skipped += 1
            return
        if key.split(":")[0] != self.key.split(":")[0]:
            raise RunError(
                f"{self.path} holds evaluations of another trained network (or another search space).",
                hint=f"Keep it and start anew: mv {self.path} {self.path}.old",
            )
        if key != self.key:
            return
        try:
            subnet = self.space.parse(subnet_id)
        except InputError:
            self.skipped += 1
            return
        self._remember(Evaluation(subnet, accuracy, seconds, search, images))

    def _remember(self, evaluation: Evaluation) -> None:
        self._began.setdefault(evaluation.search, len(self._by_subnet))
        if evaluation.images is None:
            self._by_subnet.setdefault(evaluation.subnet, evaluation)
        else:
            self._given_up.setdefault((evaluation.subnet, evaluation.search), evaluation)
