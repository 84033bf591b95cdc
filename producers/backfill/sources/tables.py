"""Rows of a database as a source: a table or a query, read page by page behind a key that each row has to itself.

No page is skipped by counting and no cursor stays open: each asks for the rows behind the last key, which an index
answers at once however far into the table, and which rows that come or go meanwhile do not shift.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from producers.backfill.rows import Columns, Record
from producers.backfill.sources.extent import Extent, Reading
from producers.backfill.sources.fingerprint import fingerprint_of
from producers.backfill.sources.roles import Roles
from producers.backfill.sources.values import plain
from tagging.errors import SourceBroken, SourceRefused

_DATABASES: Final = frozenset({"sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql"})
_PAGE_ROWS: Final = 500
_CONNECT_TIMEOUT_S: Final = 10


def is_database(spec: str) -> bool:
    """Whether this is the URL of a database."""
    scheme, separator, _ = spec.partition("://")
    return bool(separator) and scheme.partition("+")[0].lower() in _DATABASES


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """A table or a query of a database, in the order of its key."""

    url: sa.URL
    columns: Columns
    table: str | None
    query: str | None
    key: str | None
    reading: Reading = field(default_factory=Reading, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The URL without its password, and the table."""
        return f"{self.url.render_as_string(hide_password=True)} {self.table or 'query'}"

    @property
    def fingerprint(self) -> str:
        """Stands for the database, the table or query and how it is read; not for the password."""
        return fingerprint_of(self.name, self.query, self.key, asdict(self.columns))

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The records behind the one of this number, which is the key where that is a whole number.

        Where it is not, the number is the position, and a job goes on at the right place only if none of the rows that
        it has read were deleted meanwhile.

        Raises:
            SourceRefused: It cannot be read as it was described.
            SourceBroken: The database failed midway.
        """
        with _engine(self.url, where=self.name) as engine:
            try:
                relation = _Relation.found(engine, self)
            except SQLAlchemyError as e:
                raise SourceRefused(f"{self.name}: {_first_line(e)}") from e
            try:
                yield from self._behind(relation, after)
            except SQLAlchemyError as e:
                raise SourceBroken(f"{self.name}: reading stopped: {_first_line(e)}") from e

    def extent(self) -> Extent:
        """How many rows a table has, counted when it is first asked for; of a query nobody knows."""
        if self.query is None and not self.reading.is_known:
            self.reading.has(self._count())
        return self.reading.extent()

    def _count(self) -> int | None:
        try:
            with _engine(self.url, where=self.name) as engine, engine.connect() as connection:
                table = _table(engine, self.table or "", where=self.name)
                return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        except (SourceRefused, SQLAlchemyError):  # reading will say so
            return None

    def _behind(self, relation: "_Relation", after: int) -> Iterator[Record]:
        names = relation.names
        roles = Roles.among(names, self.columns, where=self.name)
        for number, values in relation.rows(after):
            yield roles.record(number, {name: plain(value) for name, value in zip(names, values, strict=True)})


def open_table(spec: str, *, columns: Columns, table: str | None, query: str | None, key: str | None) -> TableSource:
    """The table or query at this URL, of which the first row has been read.

    Raises:
        SourceRefused: It cannot be read as it was described.
    """
    if (table is None) == (query is None):
        raise SourceRefused("a database: name either a table with --table or a query with --query")
    if query is not None and key is None:
        raise SourceRefused("a query: name a column that each of its rows has to itself with --key")
    source = TableSource(url=_parsed(spec), columns=columns, table=table, query=query, key=key)
    with closing(source.records()) as records:  # type: ignore[type-var]  # a generator, which can be closed
        next(records, None)
    return source


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relation:
    """What is selected from, and the column that orders it."""

    engine: sa.Engine
    source: sa.FromClause
    key: sa.ColumnElement[Any]
    where: str

    @classmethod
    def found(cls, engine: sa.Engine, asked: TableSource) -> "_Relation":
        """The table or query that is asked for, looked up in the database."""
        if asked.query is not None:
            source: sa.FromClause = _query(engine, asked.query)
        else:
            source = _table(engine, asked.table or "", where=asked.name)
        key = _key(source, asked.key, where=asked.name)
        relation = cls(engine=engine, source=source, key=key, where=asked.name)
        if relation._fetch(sa.select(sa.literal(1)).select_from(source).where(key.is_(None)).limit(1)):
            raise SourceRefused(f"{asked.name}: rows without {key.name} would be passed over; name another --key")
        return relation

    @property
    def names(self) -> list[str]:
        """Its columns."""
        return [column.name for column in self.source.c]

    def rows(self, after: int) -> Iterator[tuple[int, Sequence[Any]]]:
        """Numbers and values behind this number, one page after the other."""
        first = self._fetch(sa.select(self.key).order_by(self.key).limit(1))
        if not first:
            return iter(())
        return self._by_key(after) if _is_whole(first[0][0]) else self._by_position(after)

    def _by_key(self, after: int) -> Iterator[tuple[int, Sequence[Any]]]:
        for key, values in self._paged(after or None):
            if not _is_whole(key) or key < 1:
                raise SourceRefused(f"{self.where}: {self.key.name} is not a whole number from 1; name another --key")
            yield key, values

    def _by_position(self, after: int) -> Iterator[tuple[int, Sequence[Any]]]:
        last = self._fetch(sa.select(self.key).order_by(self.key).offset(after - 1).limit(1)) if after else []
        if after and not last:
            return
        paged = self._paged(last[0][0] if last else None)
        for number, (_, values) in enumerate(paged, start=after + 1):
            yield number, values

    def _paged(self, last: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
        # One row more than a page holds: it shows whether two share the key at which the page would end.
        select = sa.select(self.key, *self.source.c).order_by(self.key).limit(_PAGE_ROWS + 1)
        while True:
            page = self._fetch(select if last is None else select.where(self.key > last))
            if any(one[0] == other[0] for one, other in pairwise(page)):
                raise SourceRefused(f"{self.where}: several rows have the same {self.key.name}; name another --key")
            yield from ((row[0], row[1:]) for row in page[:_PAGE_ROWS])
            if len(page) <= _PAGE_ROWS:
                return
            last = page[_PAGE_ROWS - 1][0]

    def _fetch(self, select: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with self.engine.connect() as connection:
            return connection.execute(select).all()


def _parsed(spec: str) -> sa.URL:
    try:
        url = sa.make_url(spec)
    except (ArgumentError, ValueError):
        # Without its cause, which quotes the URL and with it the password.
        raise SourceRefused("not the URL of a database, such as postgresql://user:password@host/database") from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise SourceRefused(f"{url}: no such file")
    return url


@contextmanager
def _engine(url: sa.URL, *, where: str) -> Iterator[sa.Engine]:
    timeout = {"connect_timeout": _CONNECT_TIMEOUT_S} if url.get_backend_name() == "postgresql" else {}
    try:
        engine = sa.create_engine(url, hide_parameters=True, connect_args=timeout)
    except (ModuleNotFoundError, NoSuchModuleError) as e:
        remedy = "psycopg; install tagmill[postgres]" if url.get_backend_name() == "postgresql" else f"its driver: {e}"
        raise SourceRefused(f"{where}: {url.drivername} needs {remedy}") from e
    try:
        yield engine
    finally:
        engine.dispose()


def _table(engine: sa.Engine, name: str, *, where: str) -> sa.Table:
    schema, _, table = name.rpartition(".")
    try:
        return sa.Table(table, sa.MetaData(), schema=schema or None, autoload_with=engine)
    except NoSuchTableError as e:
        known = ", ".join(sorted(sa.inspect(engine).get_table_names(schema=schema or None)))
        raise SourceRefused(f"{where}: no such table; there are: {known or 'none'}") from e


def _query(engine: sa.Engine, query: str) -> sa.FromClause:
    # SQLAlchemy takes a colon for the start of a parameter, of which there are none.
    text = query.strip().rstrip(";").replace(":", "\\:")
    with engine.connect() as connection:
        names = connection.execute(sa.text(f"SELECT * FROM ({text}) AS asked WHERE 1 = 0")).keys()  # noqa: S608  # theirs
    return sa.text(text).columns(*map(sa.column, names)).subquery("asked")


def _key(source: sa.FromClause, named: str | None, *, where: str) -> sa.ColumnElement[Any]:
    if named is not None:
        if named not in source.c:
            listed = ", ".join(column.name for column in source.c)
            raise SourceRefused(f"{where}: no column {named!r} for --key; it has: {listed}")
        return source.c[named]
    primary = list(source.primary_key)
    if len(primary) != 1:
        raise SourceRefused(
            f"{where}: its primary key is of {len(primary)} columns; name one that each row has to itself with --key"
        )
    return primary[0]


def _is_whole(key: object) -> bool:
    return isinstance(key, int) and not isinstance(key, bool)


def _first_line(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    # The driver's first line only: those below it may quote a row.
    return f"{type(cause).__name__}: {next(iter(str(cause).strip().splitlines()), '')}"
