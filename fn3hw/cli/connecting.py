"""What verbs with ``--server`` share: the client, what RUN and ``--profile`` mean there, and waiting for a job."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from fn3hw.cli.console import Console, Ticker
from fn3hw.errors import InputError, ProfileError, RunError, UnknownName

if TYPE_CHECKING:
    from fn3hw.client import Client, Job, NetworkInfo, ProfileInfo, RunInfo, SearchInfo

ALLOW_PLAIN = "FN3HW_ALLOW_PLAIN"
"""Set to ``1``, this variable lets a token go over unencrypted HTTP to another machine."""


@contextmanager
def connected(server: str) -> Iterator[Client]:
    """A client of a server."""
    from fn3hw.client import Client

    with Client(server, allow_plain=os.environ.get(ALLOW_PLAIN) == "1") as client:
        yield client


def refuse(options: Mapping[str, Any]) -> None:
    """Raise `InputError` where an option is given that a server has no use for."""
    if given := [name for name, value in options.items() if value]:
        raise InputError(
            f"{', '.join(given)} cannot go with --server.", hint="Leave it out, or leave --server out to work here."
        )


def run_of(client: Client, run: Path, console: Console) -> RunInfo:
    """The run that RUN means: a local run folder, which is pushed, or an id or a name on the server.

    Raises:
        RunError: it is a folder, but no trained run, and the server has none of that name either.
        UnknownName: the server has no such run.
        InputError: several runs have that name.
    """
    if (run / "run.toml").is_file():
        return push(client, run, None, console, "run")
    text = str(run)
    if is_network(run) or is_network_id(text):
        raise RunError(
            f"{text} is a network without a run, which names the data that this needs.",
            hint="Such a network can be profiled. To search it, push a run of it: fn3hw push RUN",
        )
    if re.fullmatch(r"run-[0-9a-f]+", text):
        return client.run(text)
    runs = list(client.runs())
    found = [one for one in runs if one.name == text]
    if len(found) > 1:
        raise InputError(
            f"{len(found)} runs are called {text!r}.", hint=f"Give an id: {', '.join(r.id for r in found)}"
        )
    if found:
        return found[0]
    if run.is_dir():
        raise RunError(f"{run} is no run folder: it has no run.toml.", hint="Train it: fn3hw train --recipe NAME")
    raise UnknownName("run", text, {one.name for one in runs})


@overload
def push(client: Client, folder: Path, name: str | None, console: Console, kind: Literal["run"]) -> RunInfo: ...
@overload
def push(client: Client, folder: Path, name: str | None, console: Console, kind: Literal["network"]) -> NetworkInfo: ...
def push(
    client: Client, folder: Path, name: str | None, console: Console, kind: Literal["run", "network"]
) -> RunInfo | NetworkInfo:
    """Give the server a run folder, or that of an exported network, with progress."""
    send = client.push if kind == "run" else client.push_network
    with console.progress("sending") as ticker:
        return send(folder, name, sent=lambda done, total: ticker.tick(done >> 10, total >> 10, None, "KiB"))


def network_of(client: Client, run: Path, console: Console) -> RunInfo | NetworkInfo:
    """What is to be measured: `run_of`, or a local folder of an exported network, which is pushed, or a network's id.

    Raises:
        Fn3hwError: as `run_of`.
    """
    if is_network(run):
        return push(client, run, None, console, "network")
    if is_network_id(str(run)):
        return client.network(str(run))
    try:
        return run_of(client, run, console)
    except UnknownName:
        named = [one for one in client.networks() if one.name == str(run)]
        if len(named) != 1:
            raise
        return named[0]


def is_network(folder: Path) -> bool:
    """Whether a folder holds a network that was exported without a run."""
    return (folder / "supernet.onnx").is_file() and not (folder / "run.toml").exists()


def is_network_id(text: str) -> bool:
    """Whether a text is the id of a network on a server, whether that has it or not."""
    return re.fullmatch(r"network-[0-9a-f]+", text) is not None


def profile_of(client: Client, profile: Path) -> ProfileInfo:
    """The profile that ``--profile`` means: a local file, which is uploaded, or an id on the server.

    Raises:
        ProfileError: it is neither.
    """
    if profile.is_file():
        return client.push_profile(profile, _device_of(profile))
    try:
        return client.profile_info(str(profile))
    except UnknownName:
        hint = f"To measure one: fn3hw profile RUN --server {client.url}"
        raise ProfileError(f"{profile} is neither a file here nor a profile on the server.", hint=hint) from None


def search_of(client: Client, run: RunInfo, profile: ProfileInfo) -> SearchInfo:
    """The newest finished search of a run with a profile.

    Raises:
        RunError: there is none.
    """
    for search in client.searches(run=run):
        if search.profile_id == profile.id:
            return search
    raise RunError(
        f"Run {run.id} was not searched with profile {profile.id} yet.",
        hint=f"Search first: fn3hw search {run.id} --profile {profile.id} --server {client.url}",
    )


def waited(client: Client, job: Job, console: Console, ticker: Ticker) -> Job:
    """A job when it is done, with progress meanwhile.

    Raises:
        Fn3hwError: it failed, as the verb would have here.
    """
    queued = False

    def seen(now: Job) -> None:
        nonlocal queued
        if now.state == "queued" and not queued:
            queued = True
            console.say(f"Job {now.id} waits for a worker.")
        if (p := now.progress) is not None and not now.is_over:
            ticker.tick(p.done, p.total, p.seconds_left, f"{p.what}{': ' if p.note else ''}{p.note}")

    return client.wait(job, seen)


def followed(client: Client, job: Job, console: Console, what: str) -> Job:
    """`waited`; interrupted, it says that the job goes on, and how to see or stop it."""
    try:
        with console.progress(what) as ticker:
            return waited(client, job, console, ticker)
    except KeyboardInterrupt:
        say_left(client, [job], console)
        raise


def say_left(client: Client, jobs: list[Job], console: Console) -> None:
    """Say that jobs go on without this verb."""
    for job in jobs:
        console.say(
            f"Job {job.id} goes on at the server. To see: fn3hw job watch {job.id} --server {client.url}; "
            f"to stop it: fn3hw job cancel {job.id} --server {client.url}"
        )


def _device_of(profile: Path) -> str:
    """A name for the device of a profile file: that of the file, as ``profile-pi5.json``, or its processor."""
    try:
        device = json.loads(profile.read_text(encoding="utf-8"))["device"]
        named = profile.stem.removeprefix("profile-") if profile.stem.startswith("profile-") else device["cpu_model"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProfileError(f"{profile} is no profile, or a damaged one.", hint="fn3hw profile RUN") from error
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(named)).strip("-")[:64] or "device"
