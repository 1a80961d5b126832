"""The verbs with ``--server``: jobs of a server, whose documents and exit statuses are those of the verbs here.

A path in a document is that of the file here where ``--output`` asks for one; else it is the id on the server, which
the next verb takes in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fn3hw.cli.connecting import (
    connected,
    followed,
    is_network_id,
    network_of,
    profile_of,
    run_of,
    say_left,
    search_of,
    waited,
)
from fn3hw.cli.console import Console, Ticker, duration, error_body
from fn3hw.cli.several import at_once, gravest
from fn3hw.cli.telling import export_text, point_text, profile_text
from fn3hw.errors import Fn3hwError, InputError, NoisyMeasurement, RunError

if TYPE_CHECKING:
    from fn3hw.client import Client, Job

FILE = "model.onnx"
PICTURE = "run/front.png"


def train(server: str, console: Console, recipe: str | None, changed: Mapping[str, Any], output: Path | None) -> None:
    """Train there; ``--output`` fetches the run folder.

    Args:
        server: its address.
        console: for progress and the result.
        recipe: name of a packaged one.
        changed: settings that differ from it.
        output: the run folder to make here.
    """
    if recipe is None:
        raise InputError("What should be trained?", hint="Give --recipe NAME: a server goes on with a run by itself.")
    with connected(server) as client:
        job = followed(client, client.train(recipe, changed, wait=False), console, f"training {recipe}")
        run = client.run(job.run_id or "")
        if output is not None:
            _fetch_run(client, run.files, output)
    place = str(output or run.id)
    document = {**(job.result or {}), "run": place}
    text = f"{place}: {document['blocks']} blocks in {document['gates']} gates, " + (
        f"full network {document['test_accuracy']:.2f}% on the test split.\n"
        f"Next: fn3hw profile {run.id} --server {server}"
    )
    console.result(document, text)


def profile(
    server: str,
    console: Console,
    run: Path | None,
    devices: Sequence[str],
    output: Path | None,
    origin: Path | None,
    **options: Any,
) -> None:
    """Measure there, on one device or on several at once."""
    if run is None:
        raise InputError("What should be profiled? RUN is missing.", hint="fn3hw profile RUN --server URL")
    if len(devices) > 1 and output is not None:
        raise InputError("--output names one file, but several devices are to be profiled.", hint="Leave it out.")
    if len(set(devices)) < len(devices):
        raise InputError(f"A device is given twice: {', '.join(devices)}.", hint="Give each one once.")
    with connected(server) as client:
        if origin is not None:
            options["origin"] = profile_of(client, origin).id
        found = network_of(client, run, console)
        searched = "RUN" if is_network_id(found.id) else found.id
        jobs = {name: client.profile(found, name, wait=False, **options) for name in devices}
        if len(devices) == 1:
            document, error = _measured(client, followed_or_error(client, jobs[devices[0]], console), output)
            console.result(document, profile_text(document, searched, server), error=error)
            return
        documents, errors = _measured_at_once(client, jobs, console)
    texts = [profile_text(one, searched, server) for one in documents if "verdict" in one]
    console.result({"profiles": documents}, "\n\n".join(texts), error=gravest(errors))


def search(server: str, console: Console, run: Path, profile: Path, plot: Path | None, **options: Any) -> None:
    """Search there; ``--plot`` fetches the picture."""
    with connected(server) as client:
        found, measured = run_of(client, run, console), profile_of(client, profile)
        job = followed(client, client.search(found, measured, wait=False, **options), console, "searching")
        if plot is not None:
            client.fetch(job, PICTURE, plot)
    document = {**(job.result or {}), "plot": str(plot) if plot else None}
    text = (
        f"{document['evaluations']} subnets evaluated in {duration(document['seconds'])}; "
        f"{len(document['points'])} points on the front.\n"
        f"Next: fn3hw lookup {found.id} --profile {measured.id} --latency-ms X --server {server}"
    )
    console.result(document, text)


def lookup(
    server: str, console: Console, run: Path, profile: Path | None, search: str | None, budgets: Mapping[str, Any]
) -> None:
    """Look a budget up there."""
    given = _given(budgets)
    with connected(server) as client:
        point = client.lookup(_search_id(client, console, run, profile, search), **given).to_json()
    console.result(point, point_text(point, several=len(given) > 1))


def export(
    server: str,
    console: Console,
    run: Path,
    profile: Path | None,
    search: str | None,
    output: Path,
    budgets: Mapping[str, Any],
    **options: Any,
) -> None:
    """Export and measure there, and fetch the file."""
    given = _given(budgets)
    with connected(server) as client:
        place = _search_id(client, console, run, profile, search)
        job, error = followed_or_error(client, client.export(place, wait=False, **{**given, **options}), console)
        result = job.result
        if FILE in client.files(job):
            client.fetch(job, FILE, output)
        if error is not None and result is None:
            raise error
    document = {**(result or {}), "path": str(output)}
    console.result(document, export_text(document), error=error)


def compare(server: str, console: Console, run: Path, profile: Path, output: Path | None, **options: Any) -> None:
    """Compare there; ``--output`` fetches the report."""
    with connected(server) as client:
        found, measured = run_of(client, run, console), profile_of(client, profile)
        job = followed(client, client.compare(found, measured, wait=False, **options), console, "comparing")
        document = dict(job.result or {})
        if output is not None:
            for name, path in document["report"].items():
                document["report"][name] = str(client.fetch(job, path, output / Path(path).name))
    kept = document["report"]["html"] if output else f"in job {job.id}; --output FOLDER fetches it"
    console.result(document, f"{len(document['methods'])} methods compared; report: {kept}")


def followed_or_error(client: Client, job: Job, console: Console) -> tuple[Job, Fn3hwError | None]:
    """A job when it is over, and what it ended in, if it was an error that leaves something behind."""
    try:
        return followed(
            client, job, console, {"profile": "measuring", "export": "exporting"}.get(job.kind, job.kind)
        ), None
    except Fn3hwError as error:
        if error.exit_status not in (3, 5):
            raise
        return client.job(job), error


def _measured(
    client: Client, ended: tuple[Job, Fn3hwError | None], output: Path | None
) -> tuple[dict[str, Any], Fn3hwError | None]:
    job, error = ended
    document = job.result
    if document is None:
        assert error is not None
        raise error
    made = client.profile_of(job)
    if output is not None:
        client.download(made.sha256, output)
    return {**document, "path": str(output or made.id)}, error


def _measured_at_once(
    client: Client, jobs: Mapping[str, Job], console: Console
) -> tuple[list[dict[str, Any]], dict[str, Fn3hwError]]:
    def work(name: str, ticker: Ticker) -> tuple[dict[str, Any], Fn3hwError | None]:
        try:
            return _measured(client, (waited(client, jobs[name], console, ticker), None), None)
        except NoisyMeasurement as error:
            return _measured(client, (client.job(jobs[name]), error), None)

    try:
        ended = at_once(console, "measuring", list(jobs), work)
    except KeyboardInterrupt:
        say_left(client, list(jobs.values()), console)
        raise
    documents, errors = [], {}
    for name, outcome in ended.items():
        document, error = ({}, outcome) if isinstance(outcome, Fn3hwError) else outcome
        document = {"name": name, **document}
        if error is not None:
            document["error"] = error_body(error)
            errors[name] = error
        documents.append(document)
    return documents, errors


def _given(budgets: Mapping[str, Any]) -> dict[str, float]:
    given = {name: value for name, value in budgets.items() if value is not None}
    if not given:
        raise InputError("No budget is given.", hint="Give --latency-ms, --peak-mib or --size-mib, or several.")
    return given


def _search_id(client: Client, console: Console, run: Path, profile: Path | None, search: str | None) -> str:
    if search is not None:
        return search
    if profile is None:
        raise InputError("Which device is it for? --profile is missing.", hint="Give --profile ID, or --search ID.")
    return search_of(client, run_of(client, run, console), profile_of(client, profile)).id


def _fetch_run(client: Client, files: Mapping[str, str], folder: Path) -> None:
    """Fetch a run folder; one that holds something else is left as it is."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "run.toml").is_file())):
        raise RunError(f"{folder} exists and is no run folder.", hint="Give a folder that is new or empty.")
    for name, sha256 in files.items():
        client.download(sha256, folder / name)
