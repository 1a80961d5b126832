"""``fn3hw profile``: measure what the parts of a network cost on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fn3hw.cli import remote
from fn3hw.cli.comparing import compare_files
from fn3hw.cli.connecting import refuse
from fn3hw.cli.console import Console
from fn3hw.cli.measuring import Wanted, measure_profile, measure_several, several_paths
from fn3hw.cli.options import AsJson, Seed, Server
from fn3hw.cli.reporting import noise, report, report_several
from fn3hw.cli.runs import OpenRun
from fn3hw.cli.runtime import Providers, Settings, Sweep, Threads, runtime_of
from fn3hw.cost.evidence import MIN_SUBNETS
from fn3hw.errors import InputError
from fn3hw.profiler import Profile


def profile(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run folder, or that of an exported network.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help='A name (fn3hw device list), "local" by default, or a command. Several measure at once.'),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The profile file; RUN/profile.json by default, RUN/profile-NAME.json of several."),
    ] = None,
    subnets: Annotated[
        int | None,
        typer.Option(min=MIN_SUBNETS, help="Subnets for the cost model: 20; 10 with --from; by need at most 160."),
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
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Measure subnets on a device and fit its cost model. Interrupted, run again, it goes on.

    With --show or --diff nothing is measured, and RUN is left out.
    """
    console = Console(as_json=as_json)
    if server is not None:
        refuse({"--show": show, "--diff": diff, "--plot": plot, "--provider": provider, "--runtime": runtime})
        return remote.profile(
            server, console, run, device or ["local"], output, origin,
            subnets=subnets, target_mape=target_mape, minutes=minutes, holdout=holdout, threads=threads, sweep=sweep,
            seed=seed, allow_noisy=allow_noisy,
        )  # fmt: skip
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
        if plot is not None:
            raise InputError(
                "--plot draws one profile, but several devices are to be profiled.",
                hint="Draw each of them afterwards: fn3hw profile --show FILE --plot FILE.png",
            )
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
