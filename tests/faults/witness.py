"""Sees each write that takes effect on the tags, at the database itself, and so counts what was lost or done twice."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from ledger.upgrade import upgrade

_TRIGGERS = {
    "sqlite": (
        "CREATE TABLE effects (ref TEXT NOT NULL, revision INTEGER NOT NULL)",
        "CREATE TRIGGER inserted AFTER INSERT ON tags BEGIN INSERT INTO effects VALUES (new.ref, new.revision); END",
        "CREATE TRIGGER updated AFTER UPDATE ON tags BEGIN INSERT INTO effects VALUES (new.ref, new.revision); END",
    ),
    "postgresql": (
        "CREATE TABLE effects (ref TEXT NOT NULL, revision INTEGER NOT NULL)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO effects VALUES (new.ref, new.revision); RETURN new; END $$",
        "CREATE TRIGGER noted AFTER INSERT OR UPDATE ON tags FOR EACH ROW EXECUTE FUNCTION note()",
    ),
}


class Witness:
    """Reads a ledger, in which triggers note every row that changes.

    A plain Celery worker in a control run notes its effects in the same table by itself.
    """

    def __init__(self, url: str, *, migrate: Callable[[str], object] = upgrade) -> None:
        migrate(url)
        parsed = sa.make_url(url)
        driver = {"postgresql": "postgresql+psycopg"}.get(parsed.drivername, parsed.drivername)
        # No pool: a connection that outlives a fault of the database would fail the next look at it.
        self._engine = sa.create_engine(parsed.set(drivername=driver), poolclass=sa.NullPool)
        with self._open() as database:
            for statement in _TRIGGERS[self._engine.dialect.name]:
                database.exec_driver_sql(statement)

    def effects(self) -> Counter[tuple[str, int]]:
        """How often each (ref, revision) was written."""
        return Counter({(r, v): n for r, v, n in self._read(_EFFECTS)})

    def answered(self) -> set[str]:
        """The documents that were written at all."""
        return {ref for (ref,) in self._read("SELECT DISTINCT ref FROM effects")}

    def standing(self) -> dict[str, int]:
        """The revision that stands for each document."""
        return {ref: revision for ref, revision in self._read("SELECT ref, revision FROM tags")}  # noqa: C416  # rows

    def dead(self) -> dict[str, str]:
        """The reason of each dead letter, by task id."""
        return {id_: reason for id_, reason in self._read("SELECT id, reason FROM dead_letters")}  # noqa: C416  # rows

    def _read(self, query: str) -> list[Any]:
        with self._open() as database:
            return list(database.exec_driver_sql(query))

    @contextmanager
    def _open(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as database:
            yield database


_EFFECTS = "SELECT ref, revision, count(*) FROM effects GROUP BY ref, revision"
