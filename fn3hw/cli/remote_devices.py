"""``fn3hw device`` with ``--server``: the devices that a server knows."""

from __future__ import annotations

from fn3hw.cli.connecting import connected, followed
from fn3hw.cli.console import Console
from fn3hw.errors import InputError, UnknownName


def add(server: str, console: Console, name: str, command: str, worker: str | None, *, replace: bool) -> None:
    """Give a command a name there; needs a token of scope admin.

    Raises:
        InputError: the name is taken, and its command is not to be replaced.
    """
    with connected(server) as client:
        if not replace:
            try:
                client.device(name)
            except UnknownName:
                pass
            else:
                hint = "Choose another name, or give it the new command with --replace."
                raise InputError(f"A device {name!r} is known already.", hint=hint)
        client.add_device(name, command, worker=worker)
    text = f"{name} is reached by: {command}\nNext: fn3hw device check {name} --server {server}"
    console.result({"name": name, "command": command}, text)


def list_devices(server: str, console: Console) -> None:
    """List them; their commands are for administrators alone, and not in lists."""
    with connected(server) as client:
        found = sorted(client.devices(), key=lambda device: device.name)
        url = client.url
    devices = [
        {
            "name": device.name,
            "command": None,
            **device.model_dump(mode="json", include={"worker", "verdict", "checked_at"}),
        }
        for device in found
    ]
    width = max(map(len, (device.name for device in found)), default=0)
    lines = [
        f"{device.name:{width}}  {f'by {device.worker}' if device.worker else 'by any worker'}"
        f"{f', last profile {device.verdict}' if device.verdict else ''}"
        for device in found
    ]
    console.result({"path": url, "devices": devices}, "\n".join(lines))


def remove(server: str, console: Console, name: str) -> None:
    """Forget a device there; needs a token of scope admin."""
    with connected(server) as client:
        client.remove_device(name)
    console.result({"name": name}, f"{name} is forgotten.")


def check(server: str, console: Console, name: str) -> None:
    """Have a device checked by a worker of the server."""
    from fn3hw.cli.device import text

    with connected(server) as client:
        job = followed(client, client.ask_check(name), console, f"checking {name}")
    document = job.result or {}
    console.result(document, text(document))
