"""The producers' Celery app: it publishes and reads results, and has no tasks of its own."""

from typing import Final

from celery import Celery
from kombu import Exchange, Queue

from tagging.names import EXCHANGE, QUEUE_OF_TASK
from tagging.settings import Settings
from tagging.wiring import celery_settings, exchange_type, queue_arguments, transport_options

_TIMEOUT_S: Final = 3


def make_app(settings: Settings) -> Celery:
    """A client of the queues; nothing is connected yet."""
    app = Celery("tagmill-producer", set_as_current=False)
    exchange = Exchange(EXCHANGE, type=exchange_type(settings))
    arguments = queue_arguments(settings)
    app.conf.update(
        {
            **celery_settings(settings),
            "broker_transport_options": {**transport_options(settings), **_timeouts(settings)},
            "broker_connection_timeout": _TIMEOUT_S,
            "result_backend": settings.results.url,
            "task_queues": [
                Queue(name, exchange, routing_key=name, queue_arguments=arguments) for name in QUEUE_OF_TASK.values()
            ],
            "task_create_missing_queues": False,
            "task_send_sent_event": True,
            # A timed-out publish may have been stored; sending it again by itself would only hide that.
            "task_publish_retry": False,
        }
    )
    return app


def _timeouts(settings: Settings) -> dict[str, float]:
    """On every wait of a publish: under an alarm RabbitMQ never confirms, and py-amqp waits for that without an end."""
    if settings.uses_redis_broker:
        return {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
    return {"read_timeout": _TIMEOUT_S, "write_timeout": _TIMEOUT_S}
