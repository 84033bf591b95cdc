"""Names on the wire. Other systems depend on them: they change only with the contract's major version."""

from typing import Final, Literal

TAG_TICKET: Final = "tagmill.tag_ticket"
TAG_COMMENT: Final = "tagmill.tag_comment"
TAG_MANY: Final = "tagmill.tag_many"
WRITE_BACK: Final = "tagmill.write_back"

QUEUE_TICKETS: Final = "tag.tickets"
QUEUE_COMMENTS: Final = "tag.comments"
QUEUE_BULK: Final = "tag.bulk"
QUEUE_WRITEBACK: Final = "tag.writeback"
QUEUE_DEAD: Final = "tag.dead"

QUEUE_OF_TASK: Final = {
    TAG_TICKET: QUEUE_TICKETS,
    TAG_COMMENT: QUEUE_COMMENTS,
    TAG_MANY: QUEUE_BULK,
    WRITE_BACK: QUEUE_WRITEBACK,
}

LIVE_QUEUES: Final = (QUEUE_TICKETS, QUEUE_COMMENTS)
"""Queues that a person waits on. They come before bulk everywhere."""

TAGGING_QUEUES: Final = (*LIVE_QUEUES, QUEUE_BULK)
"""What a tagging worker consumes, in order of preference."""

EXCHANGE: Final = "tag"

FORGET: Final = "tagmill_forget"
"""Celery remote control command: a worker's own memory forgets the texts of these digests."""

SENT_AT_HEADER: Final = "tagmill_sent_at"
"""Message header: seconds since the epoch when the sender published it."""

Kind = Literal["ticket", "comment"]
KIND_OF_TASK: Final[dict[str, Kind]] = {TAG_TICKET: "ticket", TAG_COMMENT: "comment"}
TASK_OF_KIND: Final[dict[Kind, str]] = {"ticket": TAG_TICKET, "comment": TAG_COMMENT}

Lane = Literal["live", "bulk"]


def lane_of(task_name: str) -> Lane:
    """The lane in which messages of this task travel."""
    return "bulk" if task_name == TAG_MANY else "live"
