"""``fn3hw profile``: measure what the parts of a network cost on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fn3hw.cli.comparing import compare_files
from fn3hw.cli.console import Console
from fn3hw.cli.options import AsJson, Seed
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import CostModel, fit_cost
from fn3hw.cost.plot import plot_profile
from fn3hw.errors import InputError, NoisyMeasurement
from fn3hw.profiler import Profile
from fn3hw.profiler import profile as measure


def profile(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="The run folder.")] = None,
    device: Annotated[
        str, typer.Option(help='"local", or the command of a device, such as "ssh pi python3 -".')
    ] = "local",
    output: Annotated[Path | None, typer.Option(help="The profile file; RUN/profile.json by default.")] = None,
    subnets: Annotated[int, typer.Option(min=2, help="Subnets to measure for the cost model.")] = 20,
    holdout: Annotated[int, typer.Option(min=0, help="Further random subnets, to test the cost model on.")] = 10,
    seed: Seed = 0,
    allow_noisy: Annotated[bool, typer.Option(help="End with status 0 though the measurement is noisy.")] = False,
    show: Annotated[Path | None, typer.Option(metavar="FILE", help="Show this profile instead of measuring.")] = None,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Say what differs between two profiles of a network instead of measuring."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture of costs, errors and drift to this PNG; not with --diff.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure subnets on a device and fit its cost model. Interrupted, run again, it goes on.

    With --show or --diff nothing is measured, and RUN is left out.
    """
    console = Console(as_json=as_json)
    if show is not None or diff is not None:
        look(console, run, show, diff, plot)
        return
    if run is None:
        raise InputError(
            "What should be profiled? RUN is missing.",
            hint="fn3hw profile RUN measures; fn3hw profile --show FILE and --diff A B look at profile files.",
        )
    opened = OpenRun(run, console)
    path = output or run / "profile.json"
    measured = measure_profile(opened, device=device, path=path, subnets=subnets, holdout=holdout, seed=seed)
    report(console, measured, path, plot, error=None if allow_noisy else noise(measured))


def look(
    console: Console, run: Path | None, show: Path | None, diff: tuple[Path, Path] | None, plot: Path | None
) -> None:
    """Show a profile file, or what differs between two.

    Raises:
        InputError: more than that is asked for.
        ProfileError: a file is no profile, or two are of different networks.
    """
    if [run, show, diff].count(None) < 2 or (diff and plot):
        raise InputError(
            "RUN, --show and --diff exclude each other, and --plot draws one profile, not a difference.",
            hint="fn3hw profile --show FILE --plot FILE.png, or fn3hw profile --diff A B",
        )
    if diff is not None:
        compare_files(console, *diff)
    elif show is not None:
        report(console, Profile.read(show), show, plot)


def report(
    console: Console, measured: Profile, path: Path, plot: Path | None, *, error: NoisyMeasurement | None = None
) -> None:
    """Say what a profile holds, and draw it where asked to."""
    cost = fit_cost(measured)
    if plot is not None:
        plot_profile(measured, cost, plot)
    console.result(summary(measured, cost, path), text(measured, cost, path), error=error)


def noise(measured: Profile) -> NoisyMeasurement | None:
    """The error to end in where the measurement is too noisy to trust."""
    try:
        measured.require_stable()
    except NoisyMeasurement as error:
        return error
    return None


def measure_profile(opened: OpenRun, *, device: str, path: Path, subnets: int, holdout: int, seed: int) -> Profile:
    """Measure, with a journal beside the output that an interrupted call goes on from."""
    journal = path.with_name(f"{path.name}.journal")
    with opened.console.progress("measuring") as ticker:
        measured = measure(
            opened.supernet,
            device,
            subnets,
            holdout=holdout,
            seed=seed,
            name=opened.run.recipe.network.name,
            journal=journal,
            progress=lambda p: ticker.tick(p.done, p.total, p.remaining_s, p.stage),
        )
    measured.write(path)
    journal.unlink(missing_ok=True)
    return measured


def summary(measured: Profile, cost: CostModel, path: Path) -> dict[str, Any]:
    """A profile and its cost model as JSON."""
    return {
        "path": str(path),
        "device": measured.device,
        "verdict": measured.verdict,
        "reasons": list(measured.reasons),
        "advice": list(measured.advice),
        "n_measured": len(measured.fitted),
        "reference_latency_ms": measured.reference.latency_ms,
        "rules": str(cost.rules),
        "holdout": cost.holdout.to_json(),
        "noise": {"repeat_mape": measured.noise.repeat_mape},
    }


def text(measured: Profile, cost: CostModel, path: Path) -> str:
    """A profile and its cost model for people."""
    held = cost.holdout
    lines = [
        f"{path}: {len(measured.measurements)} subnets measured, {measured.verdict}.",
        f"Full network {measured.reference.latency_ms:.3f} ms; rounds of one subnet differ by "
        f"{100 * measured.noise.repeat_mape:.2f}%.",
        f"Cost model on {held.n} subnets it has not seen: mean error {100 * held.mape:.2f}%, "
        f"{100 * held.within_10pct:.0f}% within 10%, Spearman {held.spearman:.3f}.",
        f"Rules found: {cost.rules}",
        *(f"- {reason}" for reason in (*measured.reasons, *measured.advice)),
        f"Next: fn3hw search RUN --profile {path}",
    ]
    return "\n".join(lines)
