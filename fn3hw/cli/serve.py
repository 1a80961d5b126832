"""``fn3hw serve`` and ``fn3hw worker``: the server, and processes that take its jobs."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fn3hw.cli.console import Console
from fn3hw.cli.service import Data, DatabaseUrl, StorageUrl, WorkerName, need_service, settings_of
from fn3hw.errors import InputError

if TYPE_CHECKING:
    from fn3hw.service.server import Server

FIRST_TOKEN = "token.txt"


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; one that others reach needs an admin token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    data: Data = Path("fn3hw-data"),
    database: DatabaseUrl = None,
    storage: StorageUrl = None,
    name: WorkerName = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Take jobs too, or leave them to `fn3hw worker`.")
    ] = True,
    upload_mib: Annotated[int, typer.Option(min=1, help="Largest upload.")] = 512,
    requests_per_s: Annotated[float, typer.Option(min=0, help="Of one token; 0 does not limit them.")] = 200.0,
    access_log: Annotated[bool, typer.Option(help="Log each request as a line of JSON.")] = False,
) -> None:
    """Serve API, pages and jobs, on an embedded database unless told otherwise. Killed, started again, it goes on."""
    need_service()
    from fn3hw.service import tokens
    from fn3hw.service.jobs import cores
    from fn3hw.service.server import Server

    cores.leave_last()
    console = Console(as_json=False)
    settings = settings_of(
        data=data,
        database=database,
        storage=storage,
        name=name,
        upload_mib=upload_mib,
        requests_per_s=requests_per_s,
    )
    _log(access=access_log)
    server = Server(settings, takes_jobs=worker)
    if not tokens.any_admin(server.database):
        if not _is_loopback(host):
            raise InputError(
                f"{host} can be reached by others, and there is no admin token yet.",
                hint=f"Make one first: fn3hw token create admin --scope admin --data {data}",
            )
        path = settings.data / FIRST_TOKEN
        _keep(path, tokens.create(server.database, f"first-{os.getpid()}", "admin"))
        console.say(f"An admin token was made; it is in {path}, for you alone to read.")
    _run(server, host, port, console)


def worker(
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="Take jobs of this device alone, which belongs to this worker; repeatable."),
    ] = None,
    data: Data = Path("fn3hw-data"),
    database: DatabaseUrl = None,
    storage: StorageUrl = None,
    name: WorkerName = None,
) -> None:
    """Take jobs of a server that shares its database and storage with this process."""
    need_service()
    from fn3hw.service.jobs import cores
    from fn3hw.service.server import Server

    cores.leave_last()
    console = Console(as_json=False)
    settings = settings_of(data=data, database=database, storage=storage, name=name)
    _log(access=False)
    server = Server(settings, takes_jobs=True, devices=device or ())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server.flow.open()
    console.say(f"Worker {settings.name} takes jobs" + (f" of {', '.join(device)}." if device else "."))
    stop.wait()
    console.say("Stopping: running jobs go on when this worker is started again.")
    try:
        server.flow.close()
    finally:
        os._exit(0)  # a step that was interrupted is not over: its thread waits for ever


def _run(server: Server, host: str, port: int, console: Console) -> None:
    import uvicorn

    app = server.app()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    running = uvicorn.Server(config)
    app.state.watcher.is_closing = lambda: running.should_exit
    try:
        socket = config.bind_socket()
    except SystemExit as error:
        raise InputError(f"Port {port} of {host} cannot be listened on.", hint="Choose another one: --port") from error
    address = f"http://{host if ':' not in host else f'[{host}]'}:{socket.getsockname()[1]}"
    server.flow.open()
    console.say(f"fn3hw serves at {address}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # raised once more by uvicorn when it has stopped
    gc.collect()
    gc.freeze()  # what was imported stays: looking through it again and again would make requests wait
    running.run(sockets=[socket])
    os._exit(0)  # as in `worker`


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _keep(path: Path, secret: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(f"{secret}\n")


def _log(*, access: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Json())
    root = logging.getLogger("fn3hw")
    root.addHandler(handler)
    root.setLevel(logging.INFO if access else logging.WARNING)


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        import json

        text = record.getMessage()
        body: dict[str, Any] = {"at": self.formatTime(record), "level": record.levelname.lower(), "from": record.name}
        body |= json.loads(text) if text.startswith("{") else {"message": text}
        if record.exc_info:
            body["trace"] = self.formatException(record.exc_info)
        return json.dumps(body)
