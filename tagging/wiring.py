"""How both halves talk to the broker: Celery settings that producers and workers must agree on, as plain values."""

from typing import Any, Final

from tagging.names import QUEUE_OF_TASK
from tagging.settings import Settings

REDIS_PRIORITIES: Final = (0, 3, 6, 9)
"""Celery's own steps. Ours never use them, but a foreign client may, and its messages must not be overlooked."""


def celery_settings(settings: Settings) -> dict[str, Any]:
    """What a Celery app of either half is configured with."""
    return {
        "broker_url": settings.broker.url,
        "broker_transport_options": transport_options(settings),
        "broker_heartbeat": settings.broker.heartbeat_s or None,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "result_expires": settings.results.expires_s,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_routes": {name: {"queue": queue} for name, queue in QUEUE_OF_TASK.items()},
    }


def transport_options(settings: Settings) -> dict[str, Any]:
    """Time limits on every wait; on Redis live queues first."""
    if settings.uses_redis_broker:
        return {
            "visibility_timeout": settings.broker.visibility_timeout_s,
            "queue_order_strategy": "priority",
            "priority_steps": list(REDIS_PRIORITIES),
            # Celery's defaults find a dead worker's messages a hundred seconds late.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # A worker killed while it restores keeps the others from it for one round, not for five minutes.
            "unacked_mutex_expire": 4,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
    return {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10}


def exchange_type(settings: Settings) -> str:
    """Delayed retries on RabbitMQ's quorum queues need a topic exchange; on Redis a direct one costs less."""
    return "direct" if settings.uses_redis_broker else "topic"


def queue_arguments(settings: Settings) -> dict[str, str] | None:
    """Arguments that every party must declare a queue with, or RabbitMQ refuses the declaration."""
    return None if settings.uses_redis_broker else {"x-queue-type": "quorum"}
