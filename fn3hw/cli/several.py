"""Work on several devices at once: a thread each, and none stops the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from fn3hw.cli.console import Console, Ticker, bug
from fn3hw.errors import Fn3hwError

T = TypeVar("T")


def at_once(
    console: Console, what: str, names: Sequence[str], work: Callable[[str, Ticker], T]
) -> dict[str, T | Fn3hwError]:
    """Do ``work`` for each name; what it returned, or the error that it ended in, by name.

    An interrupt does not wait for the threads, which end with the program; so at any moment files have to be whole.
    """
    ended: SimpleQueue[tuple[str, T | Fn3hwError]] = SimpleQueue()

    def one(name: str, ticker: Ticker) -> None:
        try:
            ended.put((name, work(name, ticker)))
        except Fn3hwError as error:
            ended.put((name, error))
        except BaseException as error:  # whatever it is, somebody waits for this thread
            ended.put((name, bug(error)))

    found: dict[str, T | Fn3hwError] = {}
    with console.progress_of([f"{what} {name}" for name in names]) as tickers:
        for name, ticker in zip(names, tickers, strict=True):
            Thread(target=one, args=(name, ticker), name=name, daemon=True).start()
        while len(found) < len(names):
            name, outcome = ended.get()
            found[name] = outcome
            if isinstance(outcome, Fn3hwError) and len(found) < len(names):
                console.say(f"{name} failed; the others go on.")
    return {name: found[name] for name in names}


def gravest(errors: Mapping[str, Fn3hwError]) -> Fn3hwError | None:
    """One error that tells all of them by name, with the code and exit status of the gravest; None without errors.

    A bug is graver than wrong input, that than a lost device, and that than noise, as their exit statuses are ordered.
    """
    if not errors:
        return None
    worst = min(errors.values(), key=lambda error: error.exit_status)
    hints = dict.fromkeys(error.hint for error in errors.values() if error.hint)
    whole = Fn3hwError("\n".join(f"{name}: {error.message}" for name, error in errors.items()), hint="\n".join(hints))
    whole.code, whole.exit_status = worst.code, worst.exit_status
    return whole
