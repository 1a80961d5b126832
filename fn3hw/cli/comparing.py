"""``fn3hw profile --diff``: what differs between two profiles, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fn3hw.cli.console import Console
from fn3hw.cost.difference import Difference, difference
from fn3hw.profiler import Profile

SAVINGS = ("gate", "kept", "A %", "B %", "B - A", "A ms", "B ms", "differs")
LONGEST = 60
"""Characters of a value in a table, at most."""


def compare_files(console: Console, first: Path, second: Path) -> None:
    """Say what differs between two profile files.

    Raises:
        ProfileError: one cannot be read, or they are of different networks.
    """
    a, b = Profile.read(first), Profile.read(second)
    found = difference(a, b)
    console.table("device, settings and noise", ("", "A", "B"), list(_values(found)))
    console.table("what fewer blocks of a gate save of the full network", SAVINGS, list(_gates(found)))
    console.result(found.to_json(), f"A: {first}\nB: {second}\n{_conclusion(found)}")


def _values(found: Difference) -> Iterator[tuple[str, str, str]]:
    """What differs, and the noise in any case."""
    for name, (a, b) in {**found.device, **found.settings}.items():
        yield name, _text(a, beside=b), _text(b, beside=a)
    for name, (a, b) in found.noise.items():
        yield name, _text(a), _text(b)
    (a, b), (first, second) = found.holdout, found.reference_latency_ms
    yield "mean error of the cost model", f"{100 * a.mape:.2f}%", f"{100 * b.mape:.2f}%"
    yield "rule", str(found.rules[0].shared), str(found.rules[1].shared)
    yield "full network, ms", _ms(first), _ms(second)


def _gates(found: Difference) -> Iterator[tuple[str, ...]]:
    """Two rows a gate: half of it removed, and all that can be removed."""
    for gate in found.gates:
        for row, saving in enumerate(dict.fromkeys((gate.half, gate.whole))):
            yield (
                gate.gate.name if row == 0 else "",
                f"{saving.kept}/{gate.gate.size}",
                *(f"{100 * share:.1f}" for share in (*saving.share, saving.difference)),
                *(_ms(ms) for ms in saving.ms),
                "yes" if saving.excess > 0 else "no",
            )


def _conclusion(found: Difference) -> str:
    certain = [gate.gate.name for gate in found.gates if gate.is_certain]
    uncertainty = "the cost models' own uncertainty"
    if not certain:
        return f"None of {len(found.gates)} gates differs by more than {uncertainty}."
    said = f"{len(certain)} of {len(found.gates)} gates differ by more than {uncertainty}: {', '.join(certain)}."
    return said if len(certain) == len(found.gates) else f"{said} The others' differences are within it."


def _ms(value: float | None) -> str:
    return "emulated" if value is None else f"{value:.3f}"


def _text(value: Any, *, beside: Any = None) -> str:
    """A value; of a list only what the one beside it lacks."""
    if isinstance(value, list):
        own = [str(one) for one in value if not isinstance(beside, list) or one not in beside]
        value = " ".join(own) or ("nothing else" if value else "none")
    text = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
