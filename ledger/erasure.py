"""Erasure: a document is removed wherever the ledger holds it, and a tombstone keeps it from coming back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from ledger.database import Database
from ledger.dead import ParkedLetter
from ledger.fence import document_digest, keep_writers_out
from ledger.intake import body_of, message_in
from ledger.lookup import portions
from ledger.schema import crashes, dead_letters, intake, own_notes, own_tags, tags, tombstones
from tagging.documents import Document, documents_of, texts_of, without
from tagging.names import TAG_MANY

_PAGE: Final = 200
_EMPTIED: Final[Mapping[str, Any]] = {
    "state": "erased",
    "source": "",
    "ref": None,
    "kind": None,
    "revision": None,
    "idempotency_key": None,
    "body": None,
    "reason": None,
    "next_publish_at": None,
}


@dataclass(slots=True, kw_only=True)
class Erased:
    """What was removed, and what else has to be where the ledger does not reach."""

    tags: int = 0
    own_tags: int = 0
    """Records of tags that we have set; on their tickets these stay."""
    intake: int = 0
    """Rows that were emptied, or lost one of their texts."""
    dead_letters: int = 0
    task_ids: set[str] = field(default_factory=set)
    """Tasks that were about the document: Celery's results of these may hold an answer."""
    texts: set[str] = field(default_factory=set, repr=False)
    """The document's texts, as far as they were still known: the caches may hold scores of these."""


class Eraser:
    """Erases documents. It may be interrupted and run again; nothing comes back once it has begun."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def erase(self, document: Document) -> Erased:
        """Remove the document; what is left afterwards is the digest in its tombstone.

        Messages about it that are still in a queue are refused when they come to be stored.

        Raises:
            StoreUnavailable: The database failed; what is left of the document may be erased by another try.
        """
        erased = Erased()
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            keep_writers_out(connection)
            tombstone = {"document": document_digest(document), "erased_at": now}
            connection.execute(self._database.insert(tombstones).on_conflict_do_nothing(), tombstone)
            _erase_tags(connection, document, erased)
            _erase_own(connection, document, erased)
            _erase_messages(connection, document, erased, now)
        # From here on nothing new of it can appear: the rest may take as long as it takes.
        for rows in self._pages(intake, sa.and_(intake.c.task == TAG_MANY, intake.c.body.is_not(None))):
            self._each(rows, lambda connection, row: _erase_in_bulk(connection, row, document, erased, now))
        for rows in self._pages(dead_letters, sa.true()):
            self._each(rows, lambda connection, row: _erase_letter(connection, row, document, erased))
        with self._database.writing() as connection:
            for some in portions(sorted(erased.task_ids)):
                connection.execute(sa.delete(crashes).where(crashes.c.id.in_(some)))
        return erased

    def _pages(self, table: sa.Table, condition: sa.ColumnElement[bool]) -> Iterator[list[sa.RowMapping]]:
        last = ""
        while True:
            page = sa.select(table).where(condition, table.c.id > last).order_by(table.c.id).limit(_PAGE)
            with self._database.transaction() as connection:
                rows = list(connection.execute(page).mappings())
            if not rows:
                return
            yield rows
            last = rows[-1]["id"]

    def _each(self, rows: list[sa.RowMapping], change: Callable[[sa.Connection, sa.RowMapping], None]) -> None:
        with self._database.writing() as connection:
            for row in rows:
                change(connection, row)


def _erase_tags(connection: sa.Connection, document: Document, erased: Erased) -> None:
    about = sa.and_(tags.c.ref == document.ref, tags.c.source == document.source, tags.c.kind == document.kind)
    ids = connection.execute(sa.delete(tags).where(about).returning(tags.c.task_id)).scalars().all()
    erased.tags += len(ids)
    erased.task_ids.update(ids)


def _erase_own(connection: sa.Connection, document: Document, erased: Erased) -> None:
    for table in (own_tags, own_notes):
        about = sa.and_(table.c.ref == document.ref, table.c.source == document.source, table.c.kind == document.kind)
        gone = connection.execute(sa.delete(table).where(about).returning(table.c.id)).scalars().all()
        erased.own_tags += len(gone) if table is own_tags else 0


def _erase_messages(connection: sa.Connection, document: Document, erased: Erased, now: datetime) -> None:
    about = sa.and_(intake.c.ref == document.ref, intake.c.source == document.source, intake.c.kind == document.kind)
    for row in connection.execute(sa.select(intake.c.id, intake.c.task, intake.c.body).where(about)).all():
        erased.texts.update(texts_of(document, row.task, message_in(row.body), task_id=row.id))
    ids = connection.execute(
        sa.update(intake).where(about).values(**_EMPTIED, finished_at=now).returning(intake.c.id)
    ).scalars().all()  # fmt: skip
    erased.intake += len(ids)
    erased.task_ids.update(ids)


def _erase_in_bulk(
    connection: sa.Connection, row: sa.RowMapping, document: Document, erased: Erased, now: datetime
) -> None:
    message = message_in(row["body"])
    if document not in documents_of(row["task"], message, task_id=row["id"]):
        return
    erased.texts.update(texts_of(document, row["task"], message, task_id=row["id"]))
    rest = without({document}, row["task"], message, task_id=row["id"])
    change: Mapping[str, Any] = {"body": body_of(rest)} if rest is not None else {**_EMPTIED, "finished_at": now}
    connection.execute(sa.update(intake).where(intake.c.id == row["id"]).values(**change))
    erased.intake += 1
    erased.task_ids.add(row["id"])


def _erase_letter(connection: sa.Connection, row: sa.RowMapping, document: Document, erased: Erased) -> None:
    letter = ParkedLetter(**row)
    if document not in letter.documents:
        return
    erased.texts.update(texts_of(document, letter.task, letter.message, task_id=letter.id))
    rest = letter.without(frozenset({document}))
    chosen = dead_letters.c.id == letter.id
    if rest is None:
        connection.execute(sa.delete(dead_letters).where(chosen))
    else:
        connection.execute(sa.update(dead_letters).where(chosen).values(payload=rest.payload))
    erased.dead_letters += 1
    erased.task_ids.add(letter.id)
