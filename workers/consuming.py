"""What both kinds of worker share: how they fetch and acknowledge, are scraped, and are run."""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from celery import Celery
from celery.platforms import EX_FAILURE
from kombu import transport

from tagging.settings import Settings
from tagging.wiring import WORKER_PATIENCE_S, celery_settings
from workers.exits import Exit
from workers.ports import Meter

log = structlog.get_logger()

TRANSPORTS: Final = {
    "redis": "workers.transport:Transport",
    "rediss": "workers.transport:Transport",
    "sentinel": "workers.transport:SentinelTransport",
    "amqp": "workers.rabbitmq:Transport",
    "pyamqp": "workers.rabbitmq:Transport",
    "amqps": "workers.rabbitmq:SSLTransport",
}
"""By the URL's scheme, as Celery looks them up; another is left to Celery."""


def use_our_transports() -> None:
    """From now on kombu knows our transports by the URLs' schemes, in all of this process.

    ``broker_transport`` names ours for the first connection only: where ``broker_url`` holds several hosts, kombu takes
    the transport from the URL of the next one when it changes over, and would fetch with the one that loses messages.
    """
    transport.TRANSPORT_ALIASES.update(TRANSPORTS)
    for scheme in TRANSPORTS:
        transport._transport_cache.pop(scheme, None)  # whoever connected before has looked up kombu's own


def consumer_settings(settings: Settings, *, held_in: str = "unacked") -> dict[str, Any]:
    """Celery's configuration for a worker that loses nothing; where its defaults would hurt, docs/adr says why."""
    return {
        **celery_settings(settings, patience_s=WORKER_PATIENCE_S, held_in=held_in),
        "broker_transport": TRANSPORTS.get(urlsplit(settings.broker.url).scheme),
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_consumer": "workers.lifecycle:Consumer",
        "worker_send_task_events": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # An exclusive one stays locked by a connection that went silent, and a worker that comes back under its own
        # name is refused: it would die of its own ghost.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
    }


def open_meter(settings: Settings) -> Meter:
    """A meter that is scraped where ``metrics.port`` is set; else one that only adds up.

    Raises:
        SettingsError: The port cannot be opened.
    """
    if not settings.metrics.port:
        from workers.stores.memory import MemoryMeter

        return MemoryMeter()
    from workers.exposition import PrometheusMeter

    meter = PrometheusMeter()
    meter.serve(address=settings.metrics.address, port=settings.metrics.port)
    log.info("metrics.served", address=settings.metrics.address, port=settings.metrics.port)
    return meter


def run_worker(app: Celery, options: Sequence[str]) -> int:
    """Run `celery worker` with these options until it has ended; how, as one of ``workers.exits``.

    ``worker_main`` loses the exit code: a worker that broke down would look like one that was told to stop.
    """
    from celery.bin.celery import celery

    celery.params[0].default = app
    code = celery.main(args=["worker", *options], standalone_mode=False)
    # 1 is how Celery says that something went wrong, and how ours says that no other start would help.
    return Exit.FAILED if code == EX_FAILURE else int(code or Exit.DONE)
