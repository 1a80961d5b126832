"""The database: sessions, and a schema that is brought up to date when it is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from fn3hw.errors import InputError
from fn3hw.service.errors import Unavailable
from fn3hw.space.files import only_writer

BUSY_S = 30
Made = TypeVar("Made")
_READS = {"fn3hw_reads": True}
_LOCK = 0x666E336877
"""Key of the advisory lock under which PostgreSQL is migrated."""


class Database:
    """Opened rows.

    Args:
        url: SQLAlchemy's address.

    Raises:
        InputError: the address cannot be read, its driver is not installed, or the schema is of a newer fn3hw.
        Unavailable: nothing answers there.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._readers = sessionmaker(self.engine.execution_options(**_READS), expire_on_commit=False)
        self._migrate()

    @property
    def embedded(self) -> bool:
        """Whether it is a SQLite file."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back by an error.

        Raises:
            Unavailable: the database is gone, locked for too long, or its disk is full.
        """
        with translated(), self._sessions.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads: in a SQLite file it waits for no writer.

        Raises:
            Unavailable: as `session`.
        """
        with translated(), self._readers.begin() as session:
            yield session

    def add(self, make: Callable[[Session], Made]) -> Made:
        """What ``make`` makes in a transaction; once more where the same was made by somebody else at the same time."""
        try:
            with self.session() as session:
                return make(session)
        except IntegrityError:
            with self.session() as session:
                return make(session)

    def check(self) -> None:
        """Raise `Unavailable` unless the database answers."""
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _migrate(self) -> None:
        with translated():
            if self.embedded:
                path = Path(make_url(self.url).database or "")
                path.parent.mkdir(parents=True, exist_ok=True)
                with only_writer(path.with_name(f"{path.name}.schema"), wait_s=BUSY_S), self.engine.begin() as found:
                    self._upgrade(found)
                return
            with self.engine.begin() as found:
                found.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                self._upgrade(found)

    def _upgrade(self, connection: Any) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise InputError(
                f"The database is of a newer fn3hw: {error}.", hint="Upgrade fn3hw, or restore the database of before."
            ) from error


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, connect_args={"timeout": BUSY_S})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin)
            return engine
        if parsed.get_backend_name() != "postgresql":
            raise InputError(f"A {parsed.get_backend_name()} database is not supported.", hint=_ADDRESSES)
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args={"connect_timeout": 5}
        )
    except (ArgumentError, NoSuchModuleError) as error:
        raise InputError("The address of the database cannot be read.", hint=_ADDRESSES) from error
    except ModuleNotFoundError as error:
        raise InputError(
            f"PostgreSQL needs {error.name}, which is not installed.", hint="pip install 'fn3hw[postgres]'"
        ) from error


_ADDRESSES = "Such as sqlite:///file.sqlite or postgresql://user:password@host/name"


def _begin(connection: Connection) -> None:
    """Whoever is going to write takes the lock at once: later, it might be refused instead of having to wait."""
    reads = connection.get_execution_options().keys() >= _READS.keys()
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin` begins
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


@contextmanager
def translated() -> Iterator[None]:
    """What goes wrong with a database, as an error of ours that says nothing of its address."""
    try:
        yield
    except IntegrityError:
        raise  # the same was added at the same time: who added it knows what to do
    except DataError as error:
        raise InputError("A value cannot be kept in the database.") from error
    except DBAPIError as error:
        raise Unavailable(
            f"The database cannot be used now: {type(error.orig).__name__}.", hint="Try again in a moment."
        ) from error
    except SQLAlchemyError as error:
        raise Unavailable(f"The database cannot be used now: {type(error).__name__}.") from error
