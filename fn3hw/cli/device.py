"""``fn3hw device``: names for devices, and whether a device is fit to be measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fn3hw.cli import remote_devices as remote
from fn3hw.cli.console import Console
from fn3hw.cli.options import AsJson
from fn3hw.errors import InputError
from fn3hw.profiler import Registry, connect, findings, unrest

device = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Name devices, and check them.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dots, dashes and underscores.")]
KnownDevice = Annotated[str, typer.Argument(metavar="DEVICE", help='A name, "local", or a command.')]
Command = Annotated[
    str, typer.Option(help='Reaches a Python with numpy and onnxruntime: "ssh pi@pi5.local python3 -".')
]


There = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="The devices of this server, for $FN3HW_TOKEN.")
]


@device.command()
def add(
    name: Name,
    command: Command,
    replace: Annotated[bool, typer.Option("--replace", help="Give a known name another command.")] = False,
    worker: Annotated[
        str | None, typer.Option(help="With --server: the one worker that the device can be reached from.")
    ] = None,
    server: There = None,
    as_json: AsJson = False,
) -> None:
    """Give a device a name, which works wherever a device is asked for. Nothing is connected."""
    if server is not None:
        return remote.add(server, Console(as_json=as_json), name, command, worker, replace=replace)
    if worker is not None:
        raise InputError("--worker goes with --server: devices here are reached from this machine.")
    Registry().add(name, command, replace=replace)
    text = f"{name} is reached by: {command}\nNext: fn3hw device check {name}"
    Console(as_json=as_json).result({"name": name, "command": command}, text)


@device.command("list")
def list_devices(server: There = None, as_json: AsJson = False) -> None:
    """List the devices that have a name."""
    if server is not None:
        return remote.list_devices(server, Console(as_json=as_json))
    registry = Registry()
    known = registry.commands()
    width = max(map(len, known))
    devices = [{"name": name, "command": command} for name, command in known.items()]
    text = "\n".join(f"{name:{width}}  {_shown(command)}" for name, command in known.items())
    Console(as_json=as_json).result({"path": str(registry.path), "devices": devices}, text)


@device.command()
def remove(name: Name, server: There = None, as_json: AsJson = False) -> None:
    """Forget a device's name."""
    if server is not None:
        return remote.remove(server, Console(as_json=as_json), name)
    Registry().remove(name)
    Console(as_json=as_json).result({"name": name}, f"{name} is forgotten.")


@device.command()
def check(name: KnownDevice = "local", server: There = None, as_json: AsJson = False) -> None:
    """Reach a device, show what it is, and say what limits trust in its measurements and how to fix it."""
    if server is not None:
        return remote.check(server, Console(as_json=as_json), name)
    with connect(name) as session:
        found, probe = session.device, session.probe()
    limits, spread = findings(found.key, found.state, probe), unrest(probe["wall_ns"])
    document = {
        "name": name,
        "command": found.command,
        "id": found.id,
        "device": found.key,
        "state": found.state,
        "probe": {"spread": spread, "samples": len(probe["wall_ns"]), "conditions": probe["conditions"]},
        "findings": [finding.to_json() for finding in limits],
    }
    Console(as_json=as_json).result(document, text(document))


def text(document: Mapping[str, Any]) -> str:
    """What a check found, for people."""
    key, state = document["device"], document["state"]
    reached = f", reached by: {_shown(document['command'])}" if "command" in document else ""
    rows: dict[str, Any] = {
        "device": f"{document['name']} ({document['id']}){reached}",
        "processor": f"{key['cpu_model']}, {key['machine']}{', emulated' if key['emulated'] else ''}",
        "cores": f"{len(key['cores'])} of {state['cpu_count']}",
        "memory": f"{key['memory_mib']} MiB, {state['free_mib']} MiB free",
        "system": f"{key['os']}, Python {state['python']}, numpy {state['numpy']}",
        "runtime": f"ONNX Runtime {key['onnxruntime']}: {', '.join(state['providers'])}",
        "quiet": f"a fixed computation varies by {100 * document['probe']['spread']:.1f}%",
    }
    lines = [f"{label:10} {value}" for label, value in rows.items()]
    for finding in document["findings"]:
        lines += [f"- {finding['what']}", f"  {finding['fix']}"]
    return "\n".join(lines if document["findings"] else [*lines, "Nothing was found that limits trust."])


def _shown(command: str) -> str:
    return "this machine" if command == "local" else command
