"""Sees each write that takes effect on the tags, at the database itself, and so counts what was lost or done twice."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ledger.upgrade import upgrade

_TRIGGERS = """
    CREATE TABLE effects (ref TEXT NOT NULL, revision INTEGER NOT NULL);
    CREATE TRIGGER inserted AFTER INSERT ON tags BEGIN INSERT INTO effects VALUES (new.ref, new.revision); END;
    CREATE TRIGGER updated AFTER UPDATE ON tags BEGIN INSERT INTO effects VALUES (new.ref, new.revision); END;
"""


class Witness:
    """Reads a SQLite ledger, in which triggers note every row that changes.

    A plain Celery worker in a control run notes its effects in the same table by itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        upgrade(f"sqlite:///{path}")
        with self._open() as database:
            database.executescript(_TRIGGERS)

    def effects(self) -> Counter[tuple[str, int]]:
        """How often each (ref, revision) was written."""
        with self._open() as database:
            return Counter({(r, v): n for r, v, n in database.execute(_EFFECTS)})

    def answered(self) -> set[str]:
        """The documents that were written at all."""
        with self._open() as database:
            return {ref for (ref,) in database.execute("SELECT DISTINCT ref FROM effects")}

    def standing(self) -> dict[str, int]:
        """The revision that stands for each document."""
        with self._open() as database:
            return dict(database.execute("SELECT ref, revision FROM tags"))

    def dead(self) -> dict[str, str]:
        """The reason of each dead letter, by task id."""
        with self._open() as database:
            return dict(database.execute("SELECT id, reason FROM dead_letters"))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            yield database


_EFFECTS = "SELECT ref, revision, count(*) FROM effects GROUP BY ref, revision"
