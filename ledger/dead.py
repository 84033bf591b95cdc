"""Dead letters: messages that could not be done, with their reasons, until someone requeues or drops them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import sqlalchemy as sa

from ledger.database import Database
from ledger.fence import erased_among
from ledger.intake import finish, forget_texts, reopen
from ledger.lookup import portions
from ledger.schema import as_key, dead_letters
from tagging.documents import Document, documents_of, without
from tagging.errors import TagmillError

_REQUEUE_S: Final = 60.0
"""How long whoever takes letters has to publish them before a relay does."""


class AmbiguousId(TagmillError):
    """The beginning of an id fits several dead letters; the text shows some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRow:
    """A dead letter as it is parked."""

    id: str
    task: str
    queue: str
    reason: str
    attempts: int
    payload: str
    """The message's body as it came, to the last character."""

    @property
    def message(self) -> Any:
        """The message in the payload, which is the message itself or Celery's ``[args, kwargs, embed]``.

        ``None`` where it is no message.
        """
        try:
            payload = json.loads(self.payload)
        except ValueError:
            return None
        match payload:
            case dict():
                return payload
            case [[dict() as message], dict(), *_] | [[], dict() as message, *_]:
                return message
            case _:
                return None

    @property
    def documents(self) -> list[Document]:
        """The documents that it is about."""
        return documents_of(self.task, self.message, task_id=self.id)

    def without(self, erased: frozenset[Document]) -> Self | None:
        """The letter without the texts of these documents; None where nothing is left of it."""
        if erased.isdisjoint(self.documents):
            return self
        rest = without(erased, self.task, self.message, task_id=self.id)
        return None if rest is None else replace(self, payload=json.dumps(rest, ensure_ascii=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedLetter(DeadRow):
    """A dead letter as it waits."""

    parked_at: datetime


class DeadLedger:
    """Dead letters, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def park(self, letters: Sequence[DeadRow]) -> None:
        """Keep the letters, without the texts of erased documents; the same id again replaces the earlier one.

        Those of messages that were accepted in the intake are dead there too, in the same transaction.

        Raises:
            StoreUnavailable: The database failed; the messages must not be acknowledged.
        """
        now = datetime.now(UTC)
        # The last one of an id counts, and two workers lock in the same order.
        last = dict(sorted({as_key(letter.id): letter for letter in letters}.items()))
        if not last:
            return
        insert = self._database.insert(dead_letters)
        upsert = insert.on_conflict_do_update(
            index_elements=[dead_letters.c.id],
            set_={c.name: insert.excluded[c.name] for c in dead_letters.c if not c.primary_key},
        ).returning(dead_letters.c.id)
        with self._database.writing() as connection:
            erased = erased_among(connection, (d for letter in last.values() for d in letter.documents))
            kept = [kept for letter in last.values() if (kept := letter.without(erased)) is not None]
            if kept:
                connection.execute(upsert, [{**asdict(letter), "parked_at": now} for letter in kept]).all()
            finish(connection, {letter.id: letter.reason for letter in kept}, "dead", now)

    def list(self, limit: int = 100, *, offset: int = 0, task: str | None = None) -> list[ParkedLetter]:
        """Letters, newest first; of one task, where it is given.

        Raises:
            StoreUnavailable: The database failed.
        """
        query = sa.select(dead_letters).where(_of_task(task))
        query = query.order_by(dead_letters.c.parked_at.desc(), dead_letters.c.id).limit(limit).offset(offset)
        with self._database.transaction() as connection:
            return [ParkedLetter(**row) for row in connection.execute(query).mappings()]

    def get(self, id_or_prefix: str) -> ParkedLetter | None:
        """The letter of this id, or the only one whose id begins so.

        Raises:
            AmbiguousId: Several begin so.
            StoreUnavailable: The database failed.
        """
        exact = sa.select(dead_letters).where(dead_letters.c.id == id_or_prefix)
        # Not LIKE: SQLite's ignores case, and an id may contain its wildcards.
        prefix = as_key(id_or_prefix)
        begins = sa.func.substr(dead_letters.c.id, 1, len(prefix)) == prefix
        alike = sa.select(dead_letters).where(begins).order_by(dead_letters.c.id).limit(4)
        with self._database.transaction() as connection:
            found = connection.execute(exact).mappings().all() or connection.execute(alike).mappings().all()
        if len(found) > 1:
            some = ", ".join(row["id"] for row in found[:3])
            raise AmbiguousId(f"{id_or_prefix!r} begins several ids: {some}{', …' * (len(found) > 3)}; type more of it")
        return ParkedLetter(**found[0]) if found else None

    @contextmanager
    def take(self, ids: Sequence[str]) -> Iterator[Sequence[ParkedLetter]]:
        """The letters of these ids, gone once the block ends well and still here when it does not.

        Publish inside the block: a letter is then never in neither place. One that is parked again meanwhile waits
        for the block to end, and stays. SQLite's other writers wait as well, so take some hundreds at a time. Those
        that were accepted in the intake are accepted again.

        Raises:
            StoreUnavailable: The database failed; the letters are still here, and may have been published.
        """
        with self._database.writing() as connection:
            letters = [
                ParkedLetter(**row)
                for some in portions(ids)
                for row in connection.execute(
                    sa.delete(dead_letters).where(dead_letters.c.id.in_(some)).returning(dead_letters)
                ).mappings()
            ]
            reopen(connection, ids, until=datetime.now(UTC) + timedelta(seconds=_REQUEUE_S))
            yield sorted(letters, key=lambda letter: (letter.parked_at, letter.id))

    def drop(self, ids: Sequence[str]) -> int:
        """Forget the letters of these ids, and the texts of their messages in the intake; how many there were.

        Raises:
            StoreUnavailable: The database failed; nothing was forgotten.
        """
        with self._database.writing() as connection:
            forget_texts(connection, ids)
            return sum(
                connection.execute(sa.delete(dead_letters).where(dead_letters.c.id.in_(some))).rowcount
                for some in portions(ids)
            )

    def count(self, task: str | None = None) -> int:
        """How many letters wait; of one task, where it is given.

        Raises:
            StoreUnavailable: The database failed.
        """
        query = sa.select(sa.func.count()).select_from(dead_letters).where(_of_task(task))
        with self._database.transaction() as connection:
            return connection.execute(query).scalar_one()

    def close(self) -> None:
        """Close the database's connections; a later call opens new ones."""
        self._database.close()


def _of_task(task: str | None) -> sa.ColumnElement[bool]:
    return dead_letters.c.task == task if task is not None else sa.true()
