"""Messages on their way from the command line to the queue: through the intake, or past it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ledger.intake import Due, Intake, Submission
from ledger.lookup import portions
from producers.publisher import Publisher
from producers.relay import deliver
from tagging.errors import BrokerUnreachable, DocumentErased
from tagging.names import QUEUE_OF_TASK
from tagging.settings import Settings
from tagmill.ledgers import open_ledgers


@dataclass(slots=True, kw_only=True)
class Sent:
    """What became of what was read."""

    ids: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unreachable: BrokerUnreachable | None = None
    """Why what was accepted is not on the queue yet."""


def send_directly(_settings: Settings, publisher: Publisher, submissions: Sequence[Submission]) -> Sent:
    """Publish all of it past the intake.

    Raises:
        BrokerUnreachable: Some of it was not sent, and nobody will send it.
    """
    publisher.publish_all((s.task, s.message, s.id) for s in submissions)
    return Sent(ids=[s.id for s in submissions])


def accept_and_send(settings: Settings, publisher: Publisher, submissions: Sequence[Submission]) -> Sent:
    """Accept all of it, and publish it as a relay would, so that none has to be running."""
    sent = Sent()
    with open_ledgers(settings) as ledgers:
        for some in portions(submissions):
            until = datetime.now(UTC) + timedelta(seconds=settings.intake.claim_s)
            receipts = ledgers.intake.accept(some, claimed_until=None if sent.unreachable else until)
            new = [s for s, receipt in zip(some, receipts, strict=True) if receipt.outcome == "accepted"]
            sent.ids += [receipt.id for receipt in receipts if receipt.outcome != "erased"]
            sent.refused += [f"{receipt.id}: {DocumentErased()}" for receipt in receipts if receipt.outcome == "erased"]
            if sent.unreachable is None:
                sent.unreachable = _publish(settings, publisher, ledgers.intake, new)
    return sent


def _publish(
    settings: Settings, publisher: Publisher, intake: Intake, new: Sequence[Submission]
) -> BrokerUnreachable | None:
    due = [Due(id=s.id, task=s.task, queue=QUEUE_OF_TASK[s.task], message=s.message, publishes=0) for s in new]
    try:
        deliver(due, intake=intake, broker=publisher, settings=settings.intake)
    except BrokerUnreachable as e:
        return e
    return None
