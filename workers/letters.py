"""What of a batch is parked, with its reason."""

import json
from collections.abc import Iterator, Sequence

from tagging.errors import DocumentErased, TagmillError
from tagging.names import TAG_MANY
from workers.ports import DeadLetter
from workers.verdicts import Dead, Tagged, Verdict
from workers.work import Delivery, Entry, Work, entries_of, error_of


def letters_of(work: Work, verdicts: Sequence[Verdict]) -> Iterator[DeadLetter]:
    """What is parked: dead messages, and the wrong items of ``tag_many`` messages that are done otherwise."""
    for delivery, contents, verdict in zip(work.deliveries, work.contents, verdicts, strict=True):
        match verdict:
            case Dead(cause=cause):
                yield letter(delivery, id_=delivery.id, body=delivery.body, cause=cause)
            case Tagged() if delivery.task == TAG_MANY:
                yield from _item_letters(delivery, entries_of(contents))
            case _:
                pass


def letter(delivery: Delivery, *, id_: str, body: object, cause: TagmillError) -> DeadLetter:
    """The dead letter of a delivery, or of the part of it that ``body`` is."""
    return DeadLetter(
        id=id_,
        task=delivery.task,
        queue=delivery.queue,
        reason=f"{type(cause).__name__}: {cause}",
        attempts=delivery.attempts + 1,
        payload=json.dumps(body, ensure_ascii=False),
    )


def _item_letters(delivery: Delivery, entries: Sequence[Entry]) -> Iterator[DeadLetter]:
    body = delivery.body
    assert isinstance(body, dict)  # else the message would not have had items
    for i, entry in enumerate(entries):
        if (cause := error_of(entry)) is not None and not isinstance(cause, DocumentErased):
            alone = {**body, "items": [body["items"][i]]}
            yield letter(delivery, id_=f"{delivery.id}/{i}", body=alone, cause=cause)
