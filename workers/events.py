"""Celery's events, whose publishing must not hold up the worker that they tell about."""

from collections.abc import Mapping
from typing import Any, Final

from celery.app.events import Events as StockEvents
from celery.events.dispatcher import EventDispatcher as StockDispatcher

_ONCE: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
"""A connection that broke is opened anew, once: RabbitMQ's does not come back by itself."""
_REOPENS_BY_ITSELF: Final = "redis"


class EventDispatcher(StockDispatcher):  # type: ignore[misc]  # celery ships no types
    """As Celery's, but no event is tried for ever.

    Celery asks that of its heartbeats, which the hub thread sends: with a broker that is away it would stand there
    until the broker is back, and see neither that its own connection is lost nor that it is told to stop. What cannot
    be sent is kept and goes with the next event.
    """

    def _publish(
        self,
        event: Any,
        producer: Any,
        routing_key: str,
        retry: bool = False,
        retry_policy: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        retry = retry and producer is not None and producer.connection.transport.driver_type != _REOPENS_BY_ITSELF
        policy = {**(retry_policy or {}), **_ONCE} if retry else None
        super()._publish(event, producer, routing_key, retry=retry, retry_policy=policy, **options)


class Events(StockEvents):  # type: ignore[misc]  # celery ships no types
    """``app.events`` with this dispatcher."""

    dispatcher_cls = "workers.events:EventDispatcher"
