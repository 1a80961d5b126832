"""Measuring on one device, or on several at once, into profile files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fn3hw.cli.console import Ticker
from fn3hw.cli.runs import OpenRun
from fn3hw.cli.several import at_once
from fn3hw.cost.sampling import AT_MOST, profile_until
from fn3hw.errors import Fn3hwError, InputError
from fn3hw.profiler import DEFAULT_RUNTIME, Profile, Runtime, command_of
from fn3hw.profiler import profile as measure


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be measured, and how.

    Args:
        subnets: for the cost model; None for as many as usual.
        target_mape: measure by need until the cost model is that good.
        minutes: measure by need for so long.
        holdout: random subnets to test the cost model on.
        seed: of the plan.
        runtime: how ONNX Runtime is used.
        sweep: first find the settings that are fastest.
        origin: another device's profile to start from.
    """

    subnets: int | None = None
    target_mape: float | None = None
    minutes: float | None = None
    holdout: int = 0
    seed: int = 0
    runtime: Runtime = DEFAULT_RUNTIME
    sweep: bool = False
    origin: Profile | None = None


def measure_profile(opened: OpenRun, wanted: Wanted, *, device: str, path: Path) -> Profile:
    """Measure, with a journal beside the output that an interrupted call goes on from."""
    with opened.console.progress("measuring") as ticker:
        return _measured(opened, wanted, ticker, device=device, path=path)


def _measured(opened: OpenRun, wanted: Wanted, ticker: Ticker, *, device: str, path: Path) -> Profile:
    journal = path.with_name(f"{path.name}.journal")
    options: dict[str, Any] = {
        "seed": wanted.seed,
        "runtime": wanted.runtime,
        "fastest": wanted.sweep,
        "origin": wanted.origin,
        "name": opened.network_name,
        "journal": journal,
        "progress": lambda p: ticker.tick(p.done, p.total, p.remaining_s, p.stage),
    }
    if wanted.target_mape is None and wanted.minutes is None:
        measured = measure(
            opened.supernet, device, wanted.subnets or (10 if wanted.origin else 20), holdout=wanted.holdout, **options
        )
    else:
        measured = profile_until(
            opened.supernet, device, target_mape=wanted.target_mape, minutes=wanted.minutes,
            at_most=wanted.subnets or AT_MOST, held_out=wanted.holdout, **options,
        )  # fmt: skip
    measured.write(path)
    journal.unlink(missing_ok=True)
    return measured


def measure_several(opened: OpenRun, paths: Mapping[str, Path], wanted: Wanted) -> dict[str, Profile | Fn3hwError]:
    """Measure on several devices at once: the profile of each, or the error that it ended in."""
    _ = opened.supernet, opened.network_name  # loaded before there are threads

    def work(name: str, ticker: Ticker) -> Profile:
        return _measured(opened, wanted, ticker, device=name, path=paths[name])

    return at_once(opened.console, "measuring", list(paths), work)


def several_paths(run: Path, devices: Sequence[str], output: Path | None) -> dict[str, Path]:
    """The profile file of each device.

    Raises:
        InputError: one file is asked for, a device is given twice, or no device has a name.
    """
    if output is not None:
        raise InputError(
            "--output names one file, but several devices are to be profiled.",
            hint=f"Leave it out: they are written to {run}/profile-NAME.json. Or profile one device at a time.",
        )
    paths = {name: run / f"profile-{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-')}.json" for name in devices}
    if min(len({command_of(name) for name in devices}), len(set(paths.values()))) < len(devices):
        raise InputError(
            f"A device is given twice: {', '.join(devices)}.",
            hint="Give each one once; devices whose commands are alike need names: fn3hw device add",
        )
    return paths
