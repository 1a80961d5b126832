"""``fn3hw token``: who may use a server. Works on its database, so it needs no token itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fn3hw.cli.console import Console
from fn3hw.cli.options import AsJson
from fn3hw.cli.service import Data, DatabaseUrl, need_service, settings_of

if TYPE_CHECKING:
    from fn3hw.service.database import Database

token = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Say who may use a server.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the token is known by.")]


@token.command()
def create(
    name: Name,
    scope: Annotated[str, typer.Option(help="read, submit (jobs, too) or admin (devices and tokens, too).")] = "submit",
    days: Annotated[float | None, typer.Option(help="How long it is valid; by default for ever.")] = None,
    data: Data = Path("fn3hw-data"),
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, and show it this once."""
    opened = _open(data, database)
    from fn3hw.service import tokens

    made = tokens.create(opened, name, scope, days=days)
    Console(as_json=as_json).result({"name": name, "scope": scope, "token": made}, made)


@token.command("list")
def list_tokens(data: Data = Path("fn3hw-data"), database: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List all tokens; secrets are not kept, and not shown."""
    opened = _open(data, database)
    from fn3hw.service import tokens

    console, found = Console(as_json=as_json), tokens.listed(opened)
    names = ("id", "name", "scope", "created_at", "expires_at", "revoked_at", "used_at")
    documents = [{name: _text(getattr(one, name)) for name in names} for one in found]
    console.table("tokens", names, [tuple(one[name] or "-" for name in names) for one in documents])
    console.result({"tokens": documents}, f"{len(found)} tokens")


@token.command()
def revoke(name: Name, data: Data = Path("fn3hw-data"), database: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """End a token for good."""
    opened = _open(data, database)
    from fn3hw.service import tokens

    tokens.revoke(opened, name)
    Console(as_json=as_json).result({"name": name}, f"{name} is no longer valid.")


def _open(data: Path, database: str | None) -> Database:
    need_service()
    from fn3hw.service.database import Database

    return Database(settings_of(data=data, database=database).database_url)


def _text(value: object) -> str | None:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return None if value is None else str(value)
