"""Arguments and options that several verbs take, so that they read and mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
ProfileFile = Annotated[Path, typer.Option("--profile", help="The profile of the device.")]
Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="Do it on this server, for $FN3HW_TOKEN; RUN is a run there, or a folder here."
    ),
]
TheServer = Annotated[
    str, typer.Option("--server", metavar="URL", envvar="FN3HW_SERVER", help="The server; $FN3HW_TOKEN is the token.")
]
SearchId = Annotated[
    str | None, typer.Option("--search", help="With --server: a search there; by default the newest of the profile.")
]
ProfileOrSearch = Annotated[
    Path | None, typer.Option("--profile", help="The profile of the device; with --search it is left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed: equal seeds, equal results.")]
LatencyMs = Annotated[float | None, typer.Option("--latency-ms", help="Latency budget in milliseconds.")]
RelativeCost = Annotated[
    float | None, typer.Option("--relative-cost", help="Budget on an emulated device, the full network's cost being 1.")
]
PeakMib = Annotated[float | None, typer.Option("--peak-mib", help="Peak memory budget in MiB.")]
SizeMib = Annotated[float | None, typer.Option("--size-mib", help="File size budget in MiB.")]
ExecutorName = Annotated[str, typer.Option("--executor", help="Where accuracies are evaluated: local, or ray.")]
Address = Annotated[
    str | None, typer.Option("--address", help="Of the Ray cluster; by default one of this machine alone is started.")
]
Plot = Annotated[Path | None, typer.Option("--plot", help="Write a picture of the front to this PNG.")]
