"""What a verb says: results on stdout, progress on stderr, and errors with their hint."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fn3hw.errors import Fn3hwError, InfeasibleBudget
from fn3hw.space.files import plain

LINE_EVERY_S = 15.0
TOLD_EVERY_S = 0.25
PROGRESS = "FN3HW_PROGRESS"
"""Set to ``json``, this variable makes progress and advice JSON, one object a line of stderr, for a program to read."""


class Console:
    """Where a verb writes.

    Args:
        as_json: print one JSON document on stdout instead of text for people.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._for_programs = os.environ.get(PROGRESS) == "json"
        self._err = RichConsole(stderr=True, highlight=False)
        self._out = RichConsole(highlight=False)

    def say(self, text: str) -> None:
        """A line of progress or advice, on stderr."""
        if self._for_programs:
            _tell(say=text)
            return
        self._err.print(escape(text))

    def result(self, document: Mapping[str, Any], text: str, *, error: Fn3hwError | None = None) -> None:
        """The result: as one JSON document, or as text for people.

        Raises:
            EndedIn: the result comes with an ``error``, which is part of the document.
        """
        if self.as_json:
            whole = {**document, "error": error_body(error)} if error else document
            print(json.dumps(plain(whole), indent=1, allow_nan=False))
        else:
            self._out.print(escape(text))
        if error:
            raise EndedIn(error)

    def table(self, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """A table for people; nothing with ``--json``."""
        if self.as_json:
            return
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._out.print(table)

    @contextmanager
    def progress(self, what: str) -> Iterator[Ticker]:
        """A progress bar on a terminal, and a line every now and then elsewhere."""
        with self.progress_of([what]) as (ticker,):
            yield ticker

    @contextmanager
    def progress_of(self, whats: Sequence[str]) -> Iterator[list[Ticker]]:
        """`progress` of several things at a time; their tickers may be used by different threads."""
        if self._for_programs:
            yield [_Told(what) for what in whats]
            return
        if not self._err.is_terminal:
            yield [_Lines(self, what) for what in whats]
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=self._err, transient=True) as bar:
            yield [_Bar(bar, bar.add_task(escape(what), total=None, note="")) for what in whats]


class EndedIn(Exception):
    """A verb gave its result, and ends in an error that the JSON document already holds."""

    def __init__(self, error: Fn3hwError) -> None:
        super().__init__(str(error))
        self.error = error


class Ticker(ABC):
    """Shows how far something is."""

    @abstractmethod
    def tick(self, done: int, total: int, seconds_left: float | None, note: str = "") -> None:
        """Show ``done`` of ``total`` steps, the time left and a note."""


class _Bar(Ticker):
    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar, self._task = bar, task

    def tick(self, done: int, total: int, seconds_left: float | None, note: str = "") -> None:
        text = escape(f"{done}/{total}  {duration(seconds_left)} left  {note}")
        self._bar.update(self._task, completed=done, total=total, note=text)


class _Told(Ticker):
    """Progress for a program, which decides itself how much of it to show."""

    def __init__(self, what: str) -> None:
        self._what, self._last = what, -math.inf

    def tick(self, done: int, total: int, seconds_left: float | None, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= TOLD_EVERY_S or done == total:
            self._last = now
            _tell(progress=self._what, done=done, total=total, seconds_left=seconds_left, note=note)


class _Lines(Ticker):
    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what, self._last = console, what, time.monotonic() - LINE_EVERY_S + 5.0

    def tick(self, done: int, total: int, seconds_left: float | None, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S or (done == total and now - self._last >= 1.0):
            self._last = now
            self._console.say(f"{self._what}: {done}/{total}, {duration(seconds_left)} left  {note}".rstrip())


def _tell(**what: Any) -> None:
    print(json.dumps(plain(what)), file=sys.stderr, flush=True)


def report_error(error: Fn3hwError, *, as_json: bool) -> None:
    """Say what happened, why and what to do next on stderr, and with ``--json`` also as the document on stdout."""
    err = RichConsole(stderr=True, highlight=False)
    err.print(f"[bold red]error[/]: {escape(error.message)}")
    if error.hint:
        err.print(escape(error.hint))
    if as_json:
        print(json.dumps({"error": plain(error_body(error))}, indent=1), file=sys.stdout)


def error_body(error: Fn3hwError) -> dict[str, Any]:
    """An error as JSON."""
    body: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, InfeasibleBudget):
        body |= {"limit": error.limit, "best": error.best}
    return body


def bug(error: BaseException) -> Fn3hwError:
    """An error that nobody raised on purpose, as one of ours."""
    return Fn3hwError(f"{type(error).__name__}: {error}", hint="This is a bug of fn3hw; -vv shows where.")


def duration(seconds: float | None) -> str:
    """Seconds as people say them, such as ``3 min 20 s``."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
