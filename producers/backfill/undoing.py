"""Taking a backfill back: its tags leave the ledger, and what stood before them returns."""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from ledger.intake import Intake
from ledger.schema import as_key
from ledger.tags import TagLedger
from producers.backfill.job import Asked, JobFile
from producers.backfill.runner import restored
from tagging.documents import Document
from tagging.errors import JobRefused

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
        message = "1 message" if open_ == 1 else f"{open_:,} messages"
        raise JobRefused(
            f"job {job.name!r} has {message} accepted and not finished: undo it when workers have answered them; "
            "`tagmill relay` puts on the queue what is not there yet"
        )
    removed = kept = 0
    asked = job.asked()
    while some := list(islice(asked, _AT_ONCE)):
        ours = _take_back(some, tags)
        removed += len(ours)
        kept += sum(one.is_tagged and one.item.id not in ours for one in some)
    job.state("ended", "undone")
    return {"removed": removed, "kept": kept}


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
