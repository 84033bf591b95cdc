"""Taking a backfill back: its tags leave the ledger and the tickets, and what stood in the ledger before returns."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from ledger.intake import Intake
from ledger.schema import as_key
from ledger.tags import TagLedger
from ledger.writebacks import OwnTag, WriteBackLedger
from producers.backfill.job import Asked, JobFile
from producers.backfill.runner import restored
from tagging.documents import Document
from tagging.errors import JobRefused
from tagging.wording import counted

_AT_ONCE: Final = 500


def undo(job: JobFile, *, tags: TagLedger, intake: Intake) -> dict[str, int]:
    """How many tags were ``removed``, and how many were ``kept`` because they are not this job's any more.

    What stands in the ledger decides, not what the job file knows of it: a run that was killed may have sent a message
    without noting it, and its answers came later. The caller holds the job's lock. May be called again: what is gone
    is not removed twice.

    Raises:
        JobRefused: Workers may still write tags of this job.
        StoreUnavailable: The database failed; call again.
    """
    if open_ := _unfinished(job, intake):
        raise JobRefused(
            f"job {job.name!r} has {counted(open_, 'message')} accepted and not finished: undo it when workers have "
            "answered; `tagmill relay` puts on the queue what is not there yet"
        )
    removed = kept = 0
    asked = job.asked()
    while some := list(islice(asked, _AT_ONCE)):
        ours = _take_back(some, tags)
        removed += len(ours)
        kept += sum(one.is_tagged and one.item.id not in ours for one in some)
    job.state("ended", "undone")
    return {"removed": removed, "kept": kept}


def withdraw(job: JobFile, write_backs: WriteBackLedger, *, now: datetime) -> tuple[int, list[OwnTag]]:
    """How many of the job's orders were let go before anybody carried them out; and the tags that the others have set.

    Only tags that are still ours are among these, and none that was ours before the job was made: what
    ``workers.writeback.undo`` takes off their tickets. An order that somebody else had asked for is left alone.

    Raises:
        StoreUnavailable: The database failed; call again.
    """
    withdrawn = 0
    others: set[str] = set()
    orders = job.orders()
    while some := [order.id for order in islice(orders, _AT_ONCE)]:
        gone, theirs = write_backs.withdraw(some, since=job.begun_at, now=now)
        withdrawn += gone
        others |= theirs
    return withdrawn, _set_by(job, write_backs.since(job.begun_at), others)


def _set_by(job: JobFile, tags: Sequence[OwnTag], others: set[str]) -> list[OwnTag]:
    """Those of these tags that are on their tickets for an answer of this job, or one that it has had written back."""
    ours: list[OwnTag] = []
    for start in range(0, len(tags), _AT_ONCE):
        some = tags[start : start + _AT_ONCE]
        task_ids = {own.task_id for own in some}
        asked, ordered = job.asked_among(task_ids), job.ordered(task_ids)
        ours += [
            own
            for own in some
            if own.task_id in asked or (own.task_id in ordered and ordered[own.task_id] not in others)
        ]
    return ours


def _unfinished(job: JobFile, intake: Intake) -> int:
    """How many of the job's messages are on their way; its file may not know of those that it sent last."""
    chunks = [*job.chunks("sent"), *job.chunks("ready")]
    return len(intake.unfinished_among([chunk.message_id for chunk in chunks]))


def _take_back(some: Sequence[Asked], tags: TagLedger) -> set[str]:
    """The ids of those of these items whose tags were removed."""
    standing = tags.standing([Document(one.item.source, one.item.ref, one.item.kind) for one in some])
    ids = {as_key(one.item.id): one.item.id for one in some}
    withdrawn = {row.key: row.task_id for row in standing if row.task_id in ids}
    before = [restored(one.before) for one in some if one.before is not None]
    tags.take_back(withdrawn, before)
    return {ids[task_id] for task_id in withdrawn.values()}
