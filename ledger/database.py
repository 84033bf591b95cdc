"""A database opened by its URL: a SQLite file on a laptop, PostgreSQL in production.

Whatever goes wrong with it afterwards is a ``StoreUnavailable`` that names the database without its password, and
without the values of the statement, which may be customer text.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError, StatementError

from ledger.schema import dump_json
from tagging.errors import SettingsError, StoreUnavailable

Insert = postgresql.Insert | sqlite.Insert

BUSY_TIMEOUT_S: Final = 10.0
"""How long a statement waits for SQLite's only writer to finish."""
CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 30
_OLDEST_SQLITE: Final = (3, 35, 0)  # the first with RETURNING
_EXPECTED: Final = "expected sqlite:///path/to/file.db or postgresql://user:password@host/database"


class Database:
    """Transactions on one database. Safe to share between threads; not across a fork."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    def __str__(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A connection whose work is committed at the end, or undone when an error passes through.

        Raises:
            StoreUnavailable: The database failed; nothing of the transaction is known to be stored.
            ValueError: The database was not asked: a value cannot be written at all, such as NaN in JSON.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as e:
            raise self._explained(e) from e

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """As ``transaction``, for one that reads before it writes: SQLite's other writers are kept out from its start.

        Where it began as a reader, SQLite would refuse its first change if anybody had written since.

        Raises:
            StoreUnavailable: The database failed; nothing of the transaction is known to be stored.
            ValueError: The database was not asked: a value cannot be written at all, such as NaN in JSON.
        """
        try:
            with self._writer.begin() as connection:
                yield connection
        except SQLAlchemyError as e:
            raise self._explained(e) from e

    def insert(self, table: sa.Table) -> Insert:
        """This database's own INSERT, the one that knows ON CONFLICT."""
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)

    def prepare(self, insert: Insert, table: sa.Table) -> "Prepared":
        """The statement, compiled once for this database, that writes rows of the table."""
        dialect = self._engine.dialect
        compiled = insert.compile(dialect=dialect, column_keys=[column.name for column in table.c])
        processors = {c.name: c.type.dialect_impl(dialect).bind_processor(dialect) for c in table.c}
        order = getattr(compiled, "positiontup", None)
        return Prepared(
            sql=str(compiled),
            processors={name: process for name, process in processors.items() if process is not None},
            order=tuple(order) if order else None,
        )

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    def _explained(self, error: SQLAlchemyError) -> Exception:
        cause = getattr(error, "orig", None) or error
        # The driver's first line only: those below it may quote the row.
        first = next(iter(str(cause).strip().splitlines()), "")
        text = f"{self}: {type(cause).__name__}: {first}"
        if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
            return ValueError(text)  # waiting would not help
        return StoreUnavailable(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A statement that many rows go through, a batch at a time.

    SQLAlchemy's own path takes 58 µs of CPU for a row of the tags, mostly for what is the same in each; this takes 27.
    """

    sql: str
    processors: Mapping[str, Callable[[Any], Any]]
    """What a column's type does to its values; columns whose values go as they are have none."""
    order: tuple[str, ...] | None
    """The columns by position, where the driver takes them so."""

    def run(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> int:
        """Write the rows in one call of the driver; how many were changed."""
        for name, process in self.processors.items():
            # A batch shares its time, its model and most of its labels: the same object is processed once.
            done: dict[int, Any] = {}
            for row in rows:
                value = row[name]
                if id(value) not in done:
                    done[id(value)] = process(value)
            for row in rows:
                row[name] = done[id(row[name])]
        parameters = [*map(itemgetter(*self.order), rows)] if self.order else list(rows)
        return connection.exec_driver_sql(self.sql, parameters).rowcount


def open_database(url: str) -> Database:
    """The database at this URL; a SQLite file's folder is made. Nothing is connected yet.

    Raises:
        SettingsError: The URL is none, or of a database that we do not know.
        StoreUnavailable: The folder cannot be made.
    """
    parsed = _parse(url)
    try:
        return Database(_sqlite_engine(parsed) if parsed.drivername == "sqlite" else _postgres_engine(parsed))
    except (ModuleNotFoundError, NoSuchModuleError) as e:
        raise SettingsError([f"ledger.url: {parsed.drivername} needs psycopg; install tagmill[postgres]"]) from e


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # Without its cause, which quotes the URL and with it the password.
        raise SettingsError([f"ledger.url: not the URL of a database; {_EXPECTED}"]) from None
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "postgresql+psycopg"):
        return parsed
    raise SettingsError([f"ledger.url: {parsed.drivername} is no database that we know; {_EXPECTED}"])


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise SettingsError(
            ["ledger.url: SQLite in memory forgets everything; name a file, as in sqlite:///tagmill.db"]
        )
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise SettingsError([f"ledger.url: SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer, or PostgreSQL"])
    path = Path(url.database).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreUnavailable(f"{url}: cannot make the folder {path.parent}: {e.strerror}") from e
    engine = sa.create_engine(
        url.set(database=str(path)),
        hide_parameters=True,
        json_serializer=dump_json,
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver would begin transactions where it likes, and leave a migration's DDL outside.
    connection.isolation_level = None
    cursor = connection.cursor()
    # Turning WAL on needs the file alone; it stays on, so only the first connection ever asks.
    if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # committed means on disk, even after a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _postgres_engine(url: sa.URL) -> sa.Engine:
    return sa.create_engine(
        url,
        hide_parameters=True,
        json_serializer=dump_json,
        pool_pre_ping=True,
        pool_timeout=CONNECT_TIMEOUT_S,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_S}s",
            # A host that vanished without a word is noticed in 25 s, not in the two hours of the kernel's default.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 25_000,
        },
    )
