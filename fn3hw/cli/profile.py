"""``fn3hw profile``: measure what the parts of a network cost on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fn3hw.cli.console import Console
from fn3hw.cli.options import AsJson, RunFolder, Seed
from fn3hw.cli.runs import OpenRun
from fn3hw.cost import CostModel, fit_cost
from fn3hw.errors import NoisyMeasurement
from fn3hw.profiler import Profile
from fn3hw.profiler import profile as measure


def profile(
    run: RunFolder,
    device: Annotated[
        str, typer.Option(help='"local", or the command of a device, such as "ssh pi python3 -".')
    ] = "local",
    output: Annotated[Path | None, typer.Option(help="The profile file; RUN/profile.json by default.")] = None,
    subnets: Annotated[int, typer.Option(min=2, help="Subnets to measure for the cost model.")] = 20,
    holdout: Annotated[int, typer.Option(min=0, help="Further random subnets, to test the cost model on.")] = 10,
    seed: Seed = 0,
    allow_noisy: Annotated[bool, typer.Option(help="End with status 0 though the measurement is noisy.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure subnets on a device and fit its cost model. Interrupted, run again, it goes on."""
    console = Console(as_json=as_json)
    opened = OpenRun(run, console)
    path = output or run / "profile.json"
    measured = measure_profile(opened, device=device, path=path, subnets=subnets, holdout=holdout, seed=seed)
    cost = fit_cost(measured)
    noisy = None if allow_noisy else noise(measured)
    console.result(summary(measured, cost, path), text(measured, cost, path), error=noisy)


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
        "emulated": measured.emulated,
        "verdict": measured.verdict,
        "reasons": list(measured.reasons),
        "advice": list(measured.advice),
        "n_measured": len(measured.fitted),
        "reference_latency_ms": measured.reference.latency_ms,
        "reference_instructions": measured.reference.instructions,
        "rules": str(cost.rules),
        "holdout": cost.holdout.to_json(),
        "noise": {"repeat_mape": measured.noise.repeat_mape},
    }


def text(measured: Profile, cost: CostModel, path: Path) -> str:
    """A profile and its cost model for people."""
    held, full = cost.holdout, measured.reference
    takes = f"Full network {full.latency_ms:.3f} ms" if full.latency_ms else "Emulated: relative cost only, no latency"
    if full.instructions:
        takes += f"; full network {full.instructions:,.0f} instructions"
    lines = [
        f"{path}: {len(measured.measurements)} subnets measured, {measured.verdict}.",
        f"{takes}; rounds of one subnet differ by {100 * measured.noise.repeat_mape:.2f}%.",
        f"Cost model on {held.n} subnets it has not seen: mean error {100 * held.mape:.2f}%, "
        f"{100 * held.within_10pct:.0f}% within 10%, Spearman {held.spearman:.3f}.",
        f"Rules found: {cost.rules}",
        *(f"- {reason}" for reason in (*measured.reasons, *measured.advice)),
        f"Next: fn3hw search RUN --profile {path}",
    ]
    return "\n".join(lines)
