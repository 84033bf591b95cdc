"""The producers' Celery app: it publishes and reads results, and has no tasks of its own."""

from typing import Any

from amqp.exceptions import NotFound
from celery import Celery
from kombu import Exchange, Queue

from tagging.names import EXCHANGE, QUEUE_OF_TASK
from tagging.settings import Settings
from tagging.wiring import PUBLISHER_PATIENCE_S, celery_settings, exchange_type, queue_arguments


class FoundQueue(Queue):  # type: ignore[misc]  # kombu ships no types
    """A queue of RabbitMQ that is taken as it is, and made only where it is missing.

    To declare it, even as it is, takes the right to delete it, which a producer need not have.
    """

    def declare(self, nowait: bool = False, channel: Any = None) -> str:
        """Make sure that it is there."""
        client = (channel or self.channel).connection.client
        try:
            # On a channel of its own, which RabbitMQ closes when there is no such queue.
            with client.channel() as trial:
                self.queue_declare(passive=True, channel=trial)
        except NotFound:
            super().declare(nowait=nowait, channel=channel)
        name: str = self.name
        return name


def make_app(settings: Settings) -> Celery:
    """A client of the queues; nothing is connected yet."""
    app = Celery("tagmill-producer", set_as_current=False)
    exchange = Exchange(EXCHANGE, type=exchange_type(settings))
    arguments = queue_arguments(settings)
    kind = Queue if settings.uses_redis_broker else FoundQueue
    app.conf.update(
        {
            # It takes no messages. Asking a worker something, kombu would put back what workers left behind.
            **celery_settings(settings, patience_s=PUBLISHER_PATIENCE_S, held_in="unacked.asked"),
            "broker_connection_timeout": PUBLISHER_PATIENCE_S,
            "result_backend": settings.results.url,
            "task_queues": [
                kind(name, exchange, routing_key=name, queue_arguments=arguments) for name in QUEUE_OF_TASK.values()
            ],
            "task_create_missing_queues": False,
            "task_send_sent_event": True,
            # A timed-out publish may have been stored; sending it again by itself would only hide that.
            "task_publish_retry": False,
        }
    )
    return app
