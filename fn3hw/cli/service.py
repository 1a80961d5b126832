"""What the verbs of the server share: where it keeps things."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fn3hw.errors import InputError

if TYPE_CHECKING:
    from fn3hw.service.settings import Settings

Data = Annotated[Path, typer.Option("--data", help="Folder of the embedded database, of files and running jobs.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database", help="postgresql://USER@HOST/NAME for many processes; $FN3HW_DATABASE may hold a password."
    ),
]
StorageUrl = Annotated[
    str | None, typer.Option("--storage", help="Where files are kept: a folder, or s3://BUCKET/PREFIX.")
]
WorkerName = Annotated[
    str | None, typer.Option("--name", help="Of this process; started again under it, it goes on. The host by default.")
]


def need_service() -> None:
    """Raise `InputError` unless what the server needs is installed."""
    try:
        import alembic
        import dbos
        import fastapi
        import fsspec
        import prometheus_client
        import sqlalchemy
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"A server needs {error.name}, which is not installed.", hint="pip install 'fn3hw[service]'"
        ) from error
    _ = alembic, dbos, fastapi, fsspec, prometheus_client, sqlalchemy


def settings_of(**given: Any) -> Settings:
    """The settings that options name; the rest is as usual. Their folder is there, for its owner alone if it is new.

    Raises:
        InputError: a value makes no sense, or there can be no such folder.
    """
    from fn3hw.service.settings import Settings

    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{settings.data} cannot be the folder of a server: {error.strerror}.", hint="Choose another one: --data"
        ) from error
    return settings
