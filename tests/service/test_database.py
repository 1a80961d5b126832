from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from fn3hw.errors import InputError
from fn3hw.service import database as module
from fn3hw.service.database import Database
from fn3hw.service.errors import Unavailable
from fn3hw.service.models import Base, Device, Token, now

ASSETS = Path(__file__).parent / "assets"


def differences(database: Database) -> list[Any]:
    """Of the tables and what the models say."""
    options = {"include_object": lambda _, name, kind, *__: kind != "table" or name.startswith("fn3hw_")}
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "fn3hw_schema", **options})
        return list(compare_metadata(context, Base.metadata))


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    assert differences(database) == []


def test_opened_again_it_keeps_its_rows(database: Database) -> None:
    again = Database(database.url)
    with again.session() as session:
        assert session.scalars(select(Device.name)).all() == ["local"]
    again.close()


def test_a_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    with database.session() as session:
        session.execute(text("UPDATE fn3hw_schema SET version_num = '9999'"))
    with pytest.raises(InputError, match="newer fn3hw"):
        Database(database.url)
    with database.session() as session:
        assert session.scalar(text("SELECT version_num FROM fn3hw_schema")) == "9999"


@pytest.mark.parametrize("path", sorted(ASSETS.glob("schema-*.sqlite")), ids=lambda path: path.name)
def test_database_files_of_earlier_versions_open(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "old.sqlite"
    shutil.copy(path, copy)
    opened = Database(f"sqlite:///{copy}")
    with opened.session() as session:
        assert [token.name for token in session.scalars(select(Token))] == ["old"]
    assert differences(opened) == []
    opened.close()


def test_there_is_an_asset_of_each_schema() -> None:
    versions = {path.name[1:5] for path in Path(module.__file__).parent.glob("migrations/versions/v*.py")}
    assert {path.stem.removeprefix("schema-") for path in ASSETS.glob("*.sqlite")} == versions


def test_a_locked_database_is_unavailable_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.2)
    path = tmp_path / "rows.sqlite"
    opened = Database(f"sqlite:///{path}")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="OperationalError"), opened.session() as session:
            session.add(Device(name="a", command="b", created_at=now()))
        other.execute("ROLLBACK")
        other.execute("BEGIN IMMEDIATE")
        with opened.reading() as session:
            assert session.get(Device, "a") is None, "who reads waits for no writer"
        other.execute("ROLLBACK")
    with opened.session() as session:
        assert session.get(Device, "a") is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://host/name", "mysql"),
        ("no address", "cannot be read"),
        ("postgresql://someone:secret@127.0.0.1:1/name", "cannot be used"),
    ],
)
def test_bad_addresses_are_refused_without_saying_them(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Database(url)
    assert "secret" not in str(caught.value)
