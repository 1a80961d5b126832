"""``fn3hw push``: give a server a trained run, or a network without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fn3hw.cli import connecting
from fn3hw.cli.console import Console
from fn3hw.cli.options import AsJson, TheServer

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder, or that of an exported network.")]


def push(
    run: Folder,
    server: TheServer,
    name: Annotated[str | None, typer.Option(help="What the run is called there; by default as its folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a trained run, or an exported network, to a server. What it has already is found, and not sent again."""
    console = Console(as_json=as_json)
    with connecting.connected(server) as client:
        if connecting.is_network(run):
            network = connecting.push(client, run, name, console, "network")
            document = {"network": network.id, "name": network.name}
            next_verb = f"fn3hw profile {network.id} --server {server}"
            console.result(document, f"{run} is {network.id} there, called {network.name}.\nNext: {next_verb}")
            return
        made = connecting.push(client, run, name, console, "run")
    document = {"run": made.id, "name": made.name, "network": made.network_id}
    console.result(
        document, f"{run} is {made.id} there, called {made.name}.\nNext: fn3hw profile {made.id} --server {server}"
    )
