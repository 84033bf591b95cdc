"""Taking a backfill back: its tags leave the ledger, and what stood before them returns."""

from itertools import islice
from typing import Final

from ledger.schema import as_key
from ledger.tags import TagKey, TagLedger
from producers.backfill.job import JobFile
from producers.backfill.question import Question
from producers.backfill.runner import restored
from tagging.errors import JobRefused

_AT_ONCE: Final = 500


def undo(job: JobFile, tags: TagLedger) -> dict[str, int]:
    """How many tags were ``removed``, and how many were ``kept`` because they are not this job's any more.

    The caller holds the job's lock. May be called again: what is gone is not removed twice.

    Raises:
        JobRefused: Workers may still write tags of this job.
        StoreUnavailable: The database failed; call again.
    """
    if job.chunks("sent", limit=1):
        raise JobRefused(f"job {job.name!r} has messages on the queue: resume it, pause it once they are answered")
    multi = Question.from_json(job.fact("question") or "").multi_label
    removed = asked = 0
    written = job.written()
    while some := list(islice(written, _AT_ONCE)):
        withdrawn = {
            TagKey(as_key(item.ref), as_key(item.source), item.kind, answer["label_set_digest"], multi): item.id
            for item, answer, _ in some
        }
        removed += tags.take_back(withdrawn, [restored(before) for _, _, before in some if before is not None])
        asked += len(some)
    job.state("ended", "undone")
    return {"removed": removed, "kept": asked - removed}
