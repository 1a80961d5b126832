"""``fn3hw profile``: measure what the parts of a network cost on a device."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fn3hw.cli.comparing import compare_files
from fn3hw.cli.console import Console, Ticker, duration, error_body
from fn3hw.cli.options import AsJson, Seed
from fn3hw.cli.runs import OpenRun
from fn3hw.cli.runtime import Providers, Settings, Sweep, Threads, runtime_of
from fn3hw.cli.several import at_once, gravest
from fn3hw.cost import CostModel, fit_cost
from fn3hw.cost.plot import plot_profile
from fn3hw.cost.sampling import AT_MOST, profile_until
from fn3hw.errors import Fn3hwError, InputError, NoisyMeasurement
from fn3hw.profiler import DEFAULT_RUNTIME, Profile, Runtime, command_of
from fn3hw.profiler import profile as measure


def profile(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="The run folder.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help='A name (fn3hw device list), "local" by default, or a command. Several measure at once.'),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The profile file; RUN/profile.json by default, RUN/profile-NAME.json of several."),
    ] = None,
    subnets: Annotated[
        int | None, typer.Option(min=2, help="Subnets for the cost model: 20; 10 with --from; by need at most 160.")
    ] = None,
    target_mape: Annotated[
        float | None, typer.Option(help="Measure by need until the cost model's error is at most this, such as 0.02.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Measure by need for so many minutes.")] = None,
    holdout: Annotated[int, typer.Option(min=0, help="Further random subnets, to test the cost model on.")] = 10,
    origin: Annotated[
        Path | None, typer.Option("--from", help="Another device's profile to start from; 10 subnets may do then.")
    ] = None,
    threads: Threads = 1,
    provider: Providers = None,
    runtime: Settings = None,
    sweep: Sweep = False,
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
    wanted = Wanted(
        subnets=subnets,
        target_mape=target_mape,
        minutes=minutes,
        holdout=holdout,
        seed=seed,
        runtime=runtime_of(threads, provider, runtime),
        sweep=sweep,
        origin=opened.profile(origin) if origin else None,
    )
    devices = device or ["local"]
    if len(devices) > 1:
        paths = several_paths(run, devices, output)
        report_several(console, paths, measure_several(opened, paths, wanted), allow_noisy=allow_noisy)
        return
    path = output or run / "profile.json"
    measured = measure_profile(opened, wanted, device=devices[0], path=path)
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


def measure_several(opened: OpenRun, paths: Mapping[str, Path], wanted: Wanted) -> dict[str, Profile | Fn3hwError]:
    """Measure on several devices at once: the profile of each, or the error that it ended in."""
    _ = opened.supernet, opened.run  # loaded before there are threads

    def work(name: str, ticker: Ticker) -> Profile:
        return _measured(opened, wanted, ticker, device=name, path=paths[name])

    return at_once(opened.console, "measuring", list(paths), work)


def report_several(
    console: Console, paths: Mapping[str, Path], found: Mapping[str, Profile | Fn3hwError], *, allow_noisy: bool
) -> None:
    """Fit the cost models, show all profiles, and end in the gravest error."""
    documents, texts, errors = [], [], {}
    for name, path in paths.items():
        document: dict[str, Any] = {"name": name, "path": str(path)}
        error: Fn3hwError | None
        try:
            measured = found[name]
            if isinstance(measured, Fn3hwError):
                raise measured
            cost = fit_cost(measured)
            document |= summary(measured, cost, path)
            texts.append(text(measured, cost, path))
            error = None if allow_noisy else noise(measured)
        except Fn3hwError as failed:
            error = failed
            alone = f"fn3hw profile {path.parent} --device {shlex.quote(name)} --output {path}"
            texts.append(f"{name}: failed. To go on with it alone, other options as before: {alone}")
        if error is not None:
            document["error"] = error_body(error)
            errors[name] = error
        documents.append(document)
    console.result({"profiles": documents}, "\n\n".join(texts), error=gravest(errors))


def noise(measured: Profile) -> NoisyMeasurement | None:
    """The error to end in where the measurement is too noisy to trust."""
    try:
        measured.require_stable()
    except NoisyMeasurement as error:
        return error
    return None


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
        "name": opened.run.recipe.network.name,
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


def summary(measured: Profile, cost: CostModel, path: Path) -> dict[str, Any]:
    """A profile and its cost model as JSON."""
    return {
        "path": str(path),
        "device": measured.device,
        "emulated": measured.emulated,
        "verdict": measured.verdict,
        "reasons": list(measured.reasons),
        "advice": list(measured.advice),
        "runtime": measured.settings["runtime"],
        "n_measured": len(measured.fitted),
        "sampling": measured.settings.get("sampling"),
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
        *_runtime_text(measured),
        *_sampling_text(measured),
        f"Cost model on {held.n} subnets it has not seen: mean error {100 * held.mape:.2f}%, "
        f"{100 * held.within_10pct:.0f}% within 10%, Spearman {held.spearman:.3f}.",
        f"Rules found: {cost.rules}",
        *(f"- {reason}" for reason in (*measured.reasons, *measured.advice)),
        f"Next: fn3hw search RUN --profile {path}",
    ]
    return "\n".join(lines)


def _runtime_text(measured: Profile) -> list[str]:
    """What a sweep found, and what it was worth."""
    trials = measured.settings.get("sweep")
    if trials is None:
        return []
    used, usual = measured.settings["runtime"], DEFAULT_RUNTIME.to_json()
    changed = [f"{name} {value}" for name, value in used.items() if value != usual[name]]
    refused = sum(bool(trial["refused"]) for trial in trials)
    return [
        f"Fastest of {len(trials) + 1} settings of ONNX Runtime: {', '.join(changed) or 'the usual ones'}"
        + (f"; {refused} of them cannot run the network." if refused else ".")
    ]


def _sampling_text(measured: Profile) -> list[str]:
    """Why measuring by need ended."""
    sampling = measured.settings.get("sampling")
    if sampling is None:
        return []
    because = {"target": "the target error was met", "time": "the time was up", "subnets": "there were enough of them"}
    return [
        f"Measured by need: {len(measured.fitted)} subnets in {duration(sampling['seconds'])}, until "
        f"{because[sampling['stopped_by']]}; left-out subnets are predicted within {100 * sampling['error']:.2f}%."
    ]
