"""How both halves talk to the broker: Celery settings that producers and workers must agree on, as plain values."""

from typing import Any, Final
from urllib.parse import urlsplit

from tagging.names import QUEUE_DEAD, QUEUE_OF_TASK
from tagging.settings import Settings

REDIS_PRIORITIES: Final = (0, 3, 6, 9)
"""Celery's own steps. Ours never use them, but a foreign client may, and its messages must not be overlooked."""


WORKER_PATIENCE_S: Final = 5
"""A worker waits so long for one answer of RabbitMQ: longer than a busy quorum takes to confirm."""
PUBLISHER_PATIENCE_S: Final = 3
"""A publisher waits for up to three answers, and somebody waits for the publisher."""

DELIVERY_LIMIT: Final = 1000
"""RabbitMQ counts a delivery against each message that a dead worker had fetched, whether it ran or not: a low limit
buries innocents."""


def celery_settings(settings: Settings, *, patience_s: int, held_in: str = "unacked") -> dict[str, Any]:
    """What a Celery app of either half is configured with.

    Args:
        settings: Name the broker.
        patience_s: Bounds each wait for the broker.
        held_in: The Redis key that holds what was fetched and not acknowledged, and with endings the names of two more.
            Whoever shares it puts back what another one of them left behind, for which it needs rights on its queues.
    """
    return {
        "broker_url": settings.broker.url,
        "broker_use_ssl": tls_options(settings) or False,
        "broker_transport_options": transport_options(settings, patience_s=patience_s, held_in=held_in),
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


def transport_options(settings: Settings, *, patience_s: int, held_in: str = "unacked") -> dict[str, Any]:
    """Time limits on every wait; on Redis live queues first. ADR-0012 for RabbitMQ's."""
    if settings.uses_redis_broker:
        return {
            **(_sentinel_options(settings) if settings.uses_sentinel else {}),
            "visibility_timeout": settings.broker.visibility_timeout_s,
            "queue_order_strategy": "priority",
            "priority_steps": list(REDIS_PRIORITIES),
            "unacked_key": held_in,
            "unacked_index_key": f"{held_in}_index",
            "unacked_mutex_key": f"{held_in}_mutex",
            # Celery's defaults find a dead worker's messages a hundred seconds late.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # A worker killed while it restores keeps the others from it for one round, not for five minutes.
            "unacked_mutex_expire": 4,
            "socket_timeout": WORKER_PATIENCE_S,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
    return {"confirm_publish": True, "read_timeout": patience_s, "write_timeout": patience_s}


def _sentinel_options(settings: Settings) -> dict[str, Any]:
    limits = {"socket_timeout": WORKER_PATIENCE_S, "socket_connect_timeout": WORKER_PATIENCE_S}
    return {"master_name": settings.broker.sentinel_master, "sentinel_kwargs": limits}


def tls_options(settings: Settings) -> dict[str, str]:
    """How the certificate of an ``amqps://`` broker is checked; empty for others, whose URL says all of it.

    Without a name py-amqp takes the certificate of any server that a trusted authority has signed one for.
    """
    url = urlsplit(settings.broker.url)
    if url.scheme != "amqps":
        return {}
    options = {"server_hostname": settings.broker.tls_server_name or url.hostname or "localhost"}
    if settings.broker.tls_ca_file:
        options["ca_certs"] = settings.broker.tls_ca_file
    return options


def exchange_type(settings: Settings) -> str:
    """Delayed retries on RabbitMQ's quorum queues need a topic exchange; on Redis a direct one costs less."""
    return "direct" if settings.uses_redis_broker else "topic"


def queue_arguments(settings: Settings) -> dict[str, str | int] | None:
    """Arguments that every party must declare a queue with, or RabbitMQ refuses the declaration."""
    if settings.uses_redis_broker or "classic-queue" in settings.broker.allow_unsafe:
        return None
    return {
        "x-queue-type": "quorum",
        # From RabbitMQ 4 on, a queue without these drops a message after twenty deliveries.
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": QUEUE_DEAD,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # what at-least-once needs
    }


def dead_queue_arguments() -> dict[str, str | int]:
    """Arguments of the queue on which RabbitMQ puts what it gives up."""
    return {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
