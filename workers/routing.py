"""Queues of other apps, which a link, a chain or a chord may name: published to, never declared against their owner."""

from typing import Any

from celery.app.amqp import AMQP as StockAMQP  # noqa: N811  # a class
from celery.app.amqp import Queues as StockQueues
from kombu import Exchange, Queue


class ForeignQueue(Queue):  # type: ignore[misc]  # kombu ships no types
    """A queue that is taken as it is, and made only where it is missing.

    Celery would declare it as a classic one. RabbitMQ refuses that for a quorum queue and closes the channel, so that
    the link is lost and the task that had it fails.
    """

    def declare(self, nowait: bool = False, channel: Any = None) -> str:  # noqa: ARG002  # kombu's signature
        """Make sure that it is there."""
        bound = channel or self.channel
        client = bound.connection.client
        try:
            # On a channel of its own, which RabbitMQ closes when there is no such queue.
            with client.channel() as trial:
                self.queue_declare(passive=True, channel=trial)
        except client.channel_errors:
            self.queue_declare(channel=bound)
        name: str = self.name
        return name


class Queues(StockQueues):  # type: ignore[misc]  # celery ships no types
    """As Celery's, with other apps' queues left as they are."""

    def new_missing(self, name: str) -> Queue:
        """The queue of this name, reached through the default exchange, where every queue is known by its name."""
        arguments = {"x-queue-type": "quorum"} if self.create_missing_queue_type == "quorum" else None
        return ForeignQueue(name, Exchange(""), routing_key=name, queue_arguments=arguments)


class AMQP(StockAMQP):  # type: ignore[misc]  # celery ships no types
    """Celery's messaging with these queues."""

    queues_cls = Queues
