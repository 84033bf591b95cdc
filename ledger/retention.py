"""Retention: what is finished goes after its time, a small batch at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from ledger.database import Database
from ledger.schema import crashes, dead_letters, intake, own_notes, own_tags

_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """For how many days what is finished stays."""

    text_days: float
    """Bodies of messages that are done or superseded."""
    done_days: float
    """Rows of messages that are done, superseded or erased; records of own tags that were taken off, and of notes."""
    dead_days: float
    """Dead letters, the rows of their messages, counts of crashes whose messages never came back, and own tags that
    were intended and never confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How much went."""

    texts: int
    rows: int
    dead_letters: int
    crashes: int
    own: int = 0
    """Records of tags and notes on tickets that no longer matter."""

    def __bool__(self) -> bool:
        """Whether anything went: there may be more."""
        return bool(self.texts or self.rows or self.dead_letters or self.crashes or self.own)


def forget(database: Database, keep: Keep, *, now: datetime) -> Forgotten:
    """Remove one batch of each kind of what is older than its time; call again while it removes anything.

    Raises:
        StoreUnavailable: The database failed; nothing of this batch is known to be gone.
    """
    with database.writing() as connection:
        return Forgotten(
            texts=_forget_texts(connection, now - timedelta(days=keep.text_days)),
            rows=_delete(
                connection,
                intake,
                intake.c.state.in_(("done", "superseded", "erased")),
                intake.c.finished_at < now - timedelta(days=keep.done_days),
            )
            + _delete(
                connection,
                intake,
                intake.c.state == "dead",
                intake.c.finished_at < now - timedelta(days=keep.dead_days),
            ),
            dead_letters=_delete(
                connection, dead_letters, dead_letters.c.parked_at < now - timedelta(days=keep.dead_days)
            ),
            crashes=_delete(connection, crashes, crashes.c.began_at < now - timedelta(days=keep.dead_days)),
            own=_delete(connection, own_tags, own_tags.c.removed_at < now - timedelta(days=keep.done_days))
            + _delete(
                connection,
                own_tags,
                own_tags.c.set_at.is_(None),
                own_tags.c.intended_at < now - timedelta(days=keep.dead_days),
            )
            + _delete(connection, own_notes, own_notes.c.noted_at < now - timedelta(days=keep.done_days)),
        )


def _forget_texts(connection: sa.Connection, before: datetime) -> int:
    old = _batch(
        intake, intake.c.body.is_not(None), intake.c.state.in_(("done", "superseded")), intake.c.finished_at < before
    )
    change = sa.update(intake).where(intake.c.id.in_(old)).values(body=None)
    return len(connection.execute(change.returning(intake.c.id)).all())


def _delete(connection: sa.Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
    # Counted by what comes back: for a statement that begins with a CTE, SQLite's driver counts nothing.
    change = sa.delete(table).where(table.c.id.in_(_batch(table, *conditions)))
    return len(connection.execute(change.returning(table.c.id)).all())


def _batch(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.Select[tuple[str]]:
    # A CTE: PostgreSQL may run a plain subquery with a limit more than once.
    old = sa.select(table.c.id).where(*conditions).limit(_AT_ONCE).with_for_update(skip_locked=True).cte("old")
    return sa.select(old.c.id)
