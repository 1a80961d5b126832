"""``fn3hw job``: what a server was asked for, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fn3hw.cli.connecting import connected, followed
from fn3hw.cli.console import Console, duration
from fn3hw.cli.options import AsJson, TheServer
from fn3hw.errors import Fn3hwError

if TYPE_CHECKING:
    from fn3hw.client import Job

job = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See, watch and stop the jobs of a server.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="Of the job.")]


@job.command("list")
def list_jobs(
    server: TheServer,
    kind: Annotated[str | None, typer.Option(help="train, check, profile, search, export or compare.")] = None,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    console = Console(as_json=as_json)
    with connected(server) as client:
        found = [one for one, _ in zip(client.jobs(kind=kind, state=state), range(limit), strict=False)]
    rows = [(one.id, one.state, one.device or "-", _far(one), f"{one.created_at:%Y-%m-%d %H:%M}") for one in found]
    console.table("jobs", ("job", "state", "device", "how far", "asked for at, UTC"), rows)
    console.result({"jobs": [_document(one) for one in found]}, f"{len(found)} jobs")


@job.command()
def show(name: JobId, server: TheServer, as_json: AsJson = False) -> None:
    """Show a job, the files it ended in, and the last lines it said."""
    console = Console(as_json=as_json)
    with connected(server) as client:
        found, files, log = client.job(name), client.files(name), client.log(name)
    document = {**_document(found), "files": [file.model_dump(mode="json") for file in files.values()], "log": log}
    lines = [_line(found), *(f"{file.name}  {file.size} bytes  {file.sha256}" for file in files.values())]
    lines += [f"error: {found.error['message']}"] if found.error else []
    console.result(document, "\n".join([*lines, log.rstrip()]).rstrip())


@job.command()
def watch(name: JobId, server: TheServer, as_json: AsJson = False) -> None:
    """Follow a job to its end: its document and exit status are those of the verb."""
    console = Console(as_json=as_json)
    with connected(server) as client:
        found = client.job(name)
        try:
            ended = followed(client, found, console, found.kind)
        except Fn3hwError as error:
            failed = client.job(name)
            if failed.result is None:
                raise
            console.result(failed.result, _line(failed), error=error)
            return
    console.result(ended.result or {}, _line(ended))


@job.command()
def cancel(name: JobId, server: TheServer, as_json: AsJson = False) -> None:
    """Stop a job. What it has done stays, and is found again by `fn3hw job retry`."""
    with connected(server) as client:
        found = client.cancel(name)
    text = _line(found) if found.is_over else f"{found.id} is told to stop."
    Console(as_json=as_json).result(_document(found), text)


@job.command()
def retry(name: JobId, server: TheServer, as_json: AsJson = False) -> None:
    """Ask once more for a job that failed or was cancelled; it goes on where it stopped."""
    with connected(server) as client:
        found = client.retry(name)
    text = f"{_line(found)}\nTo see: fn3hw job watch {found.id} --server {server}"
    Console(as_json=as_json).result(_document(found), text)


def _document(found: Job) -> dict[str, Any]:
    return found.model_dump(mode="json")


def _line(found: Job) -> str:
    return f"{found.id} is {found.state}{f' ({far})' if (far := _far(found)) != '-' else ''}."


def _far(found: Job) -> str:
    if (progress := found.progress) is None or found.is_over:
        return "-"
    return f"{progress.what} {progress.done}/{progress.total}, {duration(progress.seconds_left)} left"
