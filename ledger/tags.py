"""The tags that stand: one row for each document and question, never of an older revision than one already written.

A *question* is a set of hypotheses (by digest), asked singly or together. Of two answers to the same question about
the same document,

- the one of the newer revision stands, whichever came first;
- of the same revision, the first one stands, so that a task that is delivered twice writes once; unless another task
  was answered by another model (by fingerprint), which is how documents are tagged again after an upgrade.

Of a document that was erased none stands, whatever its revision.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, NamedTuple, Self

import sqlalchemy as sa

from ledger.database import Database, Prepared
from ledger.fence import erased_among
from ledger.intake import ask, finish
from ledger.lookup import among, portions
from ledger.schema import as_key, intake, tags
from ledger.writebacks import Order
from tagging.answers import Answer
from tagging.documents import Document
from tagging.messages import WriteBack

_DOCUMENT: Final = (tags.c.ref, tags.c.source, tags.c.kind)
_LEADING: Final = (tags.c.ref,)
"""Of the table's key: there are few rows to a reference."""


class TagKey(NamedTuple):
    """Which document, and which question. The order is that of the table's key."""

    ref: str
    source: str
    kind: str
    label_set_digest: str
    multi_label: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRow:
    """An answer as it is written."""

    task_id: str
    source: str
    ref: str
    kind: str
    revision: int
    label_set: str | None
    label_set_digest: str
    multi_label: bool
    decision: str
    model: str
    fingerprint: str
    answer: Answer
    logits: bytes | None = None
    """Those of its pairs, as whoever wrote them packs them."""
    write_back: WriteBack | None = None
    """Where the tags go once they stand; not a column."""

    @classmethod
    def of(cls, answer: Answer, *, logits: bytes | None = None, write_back: WriteBack | None = None) -> Self:
        """The row of this answer."""
        return cls(
            task_id=answer["id"],
            source=answer["source"],
            ref=answer["ref"],
            kind=answer["kind"],
            revision=answer["revision"],
            label_set=answer["label_set"],
            label_set_digest=answer["label_set_digest"],
            multi_label=answer["multi_label"],
            decision=answer["decision"],
            model=answer["model"]["name"],
            fingerprint=answer["model"]["fingerprint"],
            answer=answer,
            logits=logits,
            write_back=write_back,
        )

    @property
    def key(self) -> TagKey:
        """What two rows share when only one of them can stand."""
        # As stored: two references that are the same to the database are one row.
        return TagKey(as_key(self.ref), as_key(self.source), self.kind, self.label_set_digest, self.multi_label)

    @property
    def document(self) -> Document:
        """Which document it is about."""
        return Document(self.source, self.ref, self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a batch of tags."""

    changed: int
    """Rows that stand now and did not before."""
    erased: frozenset[Document]
    """Documents of the batch that were erased: none of their tags was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingTags(TagRow):
    """An answer as it stands."""

    created_at: datetime
    updated_at: datetime


def supersedes(new: TagRow, old: TagRow) -> bool:
    """Whether ``new`` replaces ``old``, which has the same key. The upsert says the same in SQL."""
    if new.revision != old.revision:
        return new.revision > old.revision
    return new.task_id != old.task_id and new.fingerprint != old.fingerprint


def standing_of(rows: Iterable[TagRow]) -> list[TagRow]:
    """The rows that stand after all of them came in this order: one a key, sorted by key."""
    standing: dict[TagKey, TagRow] = {}
    for row in rows:
        key = row.key
        old = standing.get(key)
        if old is None or supersedes(row, old):
            standing[key] = row
    # Two workers that lock the same rows in the same order cannot deadlock.
    return [row for _, row in sorted(standing.items(), key=itemgetter(0))]


def superseded(messages: Mapping[str, Iterable[TagRow]], standing: Mapping[TagKey, int]) -> set[str]:
    """The messages to which nothing but older revisions than the standing ones was answered."""
    return {
        id_
        for id_, rows in messages.items()
        if (revisions := [(row.revision, standing.get(row.key, row.revision)) for row in rows])
        and all(mine < newest for mine, newest in revisions)
    }


class TagLedger:
    """Tags that stand, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, messages: Mapping[str, Sequence[TagRow]]) -> Written:
        """Store what was answered to each message, by its task id, and finish those that were accepted in the intake.

        One transaction, in which each answer that stands and is to be written back is put into the intake as a
        ``tagmill.write_back``. A message may have no rows: it is finished all the same.

        Raises:
            StoreUnavailable: The database failed; the same batch can be written again.
        """
        if not messages:
            return Written(changed=0, erased=frozenset())
        rows = [row for answered in messages.values() for row in answered]
        standing = standing_of(rows)
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            erased = erased_among(connection, (row.document for row in standing))
            kept = [row for row in standing if row.document not in erased] if erased else standing
            changed = self._upsert.run(connection, [_values(row, now) for row in kept]) if kept else 0
            # Where every row was written none of them is older than what stands.
            stale = superseded(messages, _revisions(connection, kept)) if changed < len(rows) else set()
            self._ask_for_write_backs(connection, kept, now)
            finish(connection, dict.fromkeys(messages.keys() - stale), "done", now)
            finish(connection, dict.fromkeys(stale, "a newer revision stands"), "superseded", now)
        return Written(changed=changed, erased=erased)

    def by_id(self, task_id: str) -> list[StandingTags]:
        """What stands as the answer to the task of this id, newest first.

        Raises:
            StoreUnavailable: The database failed.
        """
        return self._select(tags.c.task_id == task_id)

    def by_ref(self, ref: str, source: str | None = None) -> list[StandingTags]:
        """What stands for the document of this reference, in one source or in any, newest first.

        Raises:
            StoreUnavailable: The database failed.
        """
        of_source = tags.c.source == source if source is not None else sa.true()
        return self._select(sa.and_(tags.c.ref == ref, of_source))

    def standing(self, documents: Collection[Document]) -> list[StandingTags]:
        """What stands for these documents, whatever was asked about them.

        Raises:
            StoreUnavailable: The database failed.
        """
        wanted = sorted({_as_stored(document) for document in documents})
        with self._database.transaction() as connection:
            return [
                StandingTags(**row)
                for some in portions(wanted)
                for row in connection.execute(sa.select(tags).where(among(_DOCUMENT, some, by=_LEADING))).mappings()
            ]

    def logits(self, documents: Collection[Document]) -> list[tuple[Document, bytes]]:
        """Each document with the logits of one of the answers that stand for it, as they were packed.

        Raises:
            StoreUnavailable: The database failed.
        """
        named = {_as_stored(document): document for document in documents}
        query = sa.select(*_DOCUMENT, tags.c.logits).where(tags.c.logits.is_not(None))
        with self._database.transaction() as connection:
            return [
                (named[tuple(stored)], bytes(logits))
                for some in portions(sorted(named))
                for *stored, logits in connection.execute(query.where(among(_DOCUMENT, some, by=_LEADING)))
            ]

    def take_back(self, withdrawn: Mapping[TagKey, str], before: Collection[StandingTags]) -> int:
        """Remove answers where they still stand, and put back what stood before them; how many were removed.

        One transaction. What a later task wrote in their place stays.

        Args:
            withdrawn: The task whose answer is removed, by the key of its row.
            before: At most one a key; put back only where a row was removed.

        Raises:
            StoreUnavailable: The database failed; nothing was changed.
        """
        removed: set[TagKey] = set()
        with self._database.writing() as connection:
            erased = erased_among(connection, (row.document for row in before))
            for key, task_id in sorted(withdrawn.items()):
                columns = zip(tags.primary_key.columns, key, strict=True)
                mine = sa.and_(tags.c.task_id == task_id, *(column == value for column, value in columns))
                if connection.execute(sa.delete(tags).where(mine)).rowcount:
                    removed.add(key)
            back = [row for row in before if row.key in removed and row.document not in erased]
            if back:
                kept = [{**_values(row, row.updated_at), "created_at": row.created_at} for row in back]
                connection.execute(sa.insert(tags), kept)
        return len(removed)

    def close(self) -> None:
        """Close the database's connections; a later call opens new ones."""
        self._database.close()

    @cached_property
    def _upsert(self) -> Prepared:
        insert = self._database.insert(tags)
        new = insert.excluded
        return self._database.prepare(
            insert.on_conflict_do_update(
                index_elements=list(tags.primary_key.columns),
                set_={c.name: new[c.name] for c in tags.c if not c.primary_key and c.name != "created_at"},
                where=sa.or_(
                    tags.c.revision < new.revision,
                    sa.and_(
                        tags.c.revision == new.revision,
                        tags.c.task_id != new.task_id,
                        tags.c.fingerprint != new.fingerprint,
                    ),
                ),
            ),
            tags,
        )

    def _ask_for_write_backs(self, connection: sa.Connection, rows: Sequence[TagRow], now: datetime) -> None:
        """Put one into the intake for each of these rows that wants it and stands; asked again, it is the same one."""
        wanted = [row for row in rows if row.write_back is not None]
        if not wanted:
            return
        standing = _answered_by(connection, wanted)
        orders = [
            Order.about(row, row.write_back)
            for row in wanted
            if row.write_back is not None
            and standing.get(row.key) == (row.revision, as_key(row.task_id), row.fingerprint)
        ]
        ask(connection, self._database.insert(intake), [order.submission for order in orders], now)

    def _select(self, condition: sa.ColumnElement[bool]) -> list[StandingTags]:
        query = sa.select(tags).where(condition).order_by(tags.c.updated_at.desc(), *tags.primary_key.columns)
        with self._database.transaction() as connection:
            return [StandingTags(**row) for row in connection.execute(query).mappings()]


def _as_stored(document: Document) -> tuple[str, str, str]:
    return as_key(document.ref), as_key(document.source), document.kind


def _revisions(connection: sa.Connection, rows: Collection[TagRow]) -> dict[TagKey, int]:
    """The revisions that stand under the keys of these rows."""
    key = [*tags.primary_key.columns]
    columns = (*key, tags.c.revision)
    return {
        TagKey(*found[:-1]): found[-1]
        for some in portions([row.key for row in rows])
        for found in connection.execute(sa.select(*columns).where(among(key, some, by=_LEADING)))
    }


def _answered_by(connection: sa.Connection, rows: Collection[TagRow]) -> dict[TagKey, tuple[int, str, str]]:
    """Revision, task and model of what stands under the keys of these rows."""
    key = [*tags.primary_key.columns]
    columns = (*key, tags.c.revision, tags.c.task_id, tags.c.fingerprint)
    return {
        TagKey(*found[:-3]): (found[-3], found[-2], found[-1])
        for some in portions([row.key for row in rows])
        for found in connection.execute(sa.select(*columns).where(among(key, some, by=_LEADING)))
    }


def _values(row: TagRow, now: datetime) -> dict[str, Any]:
    if not all(map(math.isfinite, row.answer["scores"])):
        raise ValueError(f"the answer of task {row.task_id} holds NaN or Inf")
    return {
        "task_id": row.task_id,
        "source": row.source,
        "ref": row.ref,
        "kind": row.kind,
        "revision": row.revision,
        "label_set": row.label_set,
        "label_set_digest": row.label_set_digest,
        "multi_label": row.multi_label,
        "decision": row.decision,
        "model": row.model,
        "fingerprint": row.fingerprint,
        "answer": row.answer,
        "logits": row.logits,
        "created_at": now,
        "updated_at": now,
    }
