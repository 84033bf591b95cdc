"""The tags that stand: one row for each document and question, never of an older revision than one already written.

A *question* is a set of hypotheses (by digest), asked singly or together. Of two answers to the same question about
the same document,

- the one of the newer revision stands, whichever came first;
- of the same revision, the first one stands, so that a task that is delivered twice writes once; unless another task
  was answered by another model (by fingerprint), which is how documents are tagged again after an upgrade.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from ledger.database import Database, Prepared
from ledger.schema import as_key, tags
from tagging.answers import Answer


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

    @classmethod
    def of(cls, answer: Answer) -> Self:
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
        )

    @property
    def key(self) -> TagKey:
        """What two rows share when only one of them can stand."""
        # As stored: two references that are the same to the database are one row.
        return TagKey(as_key(self.ref), as_key(self.source), self.kind, self.label_set_digest, self.multi_label)


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
        if row.key not in standing or supersedes(row, standing[row.key]):
            standing[row.key] = row
    # Two workers that lock the same rows in the same order cannot deadlock.
    return sorted(standing.values(), key=lambda row: row.key)


class TagLedger:
    """Tags that stand, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, rows: Sequence[TagRow]) -> int:
        """Store the batch in one transaction; how many rows it changed.

        Raises:
            StoreUnavailable: The database failed; the same batch can be written again.
        """
        standing = standing_of(rows)
        if not standing:
            return 0
        now = datetime.now(UTC)
        with self._database.transaction() as connection:
            return self._upsert.run(connection, [_values(row, now) for row in standing])

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

    def _select(self, condition: sa.ColumnElement[bool]) -> list[StandingTags]:
        query = sa.select(tags).where(condition).order_by(tags.c.updated_at.desc(), *tags.primary_key.columns)
        with self._database.transaction() as connection:
            return [StandingTags(**row) for row in connection.execute(query).mappings()]


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
        "created_at": now,
        "updated_at": now,
    }
