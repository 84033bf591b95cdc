"""Puts tasks on the queue."""

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from producers.app import make_app
from tagging.errors import BrokerUnreachable
from tagging.names import QUEUE_OF_TASK, SENT_AT_HEADER
from tagging.redaction import redacted
from tagging.settings import Settings, mask_url


class Publisher:
    """Publishes messages of the contract. The same id published twice has one answer."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.broker.url
        self._app: Celery = make_app(settings)

    def publish(self, task: str, message: Mapping[str, Any], *, task_id: str | None = None) -> str:
        """Send one message to its queue and return its task id.

        Raises:
            BrokerUnreachable: It is not known whether the message was stored; publishing the same id again is safe.
        """
        task_id = task_id or str(uuid.uuid4())
        self.publish_all([(task, message, task_id)])
        return task_id

    def publish_all(self, messages: Iterable[tuple[str, Mapping[str, Any], str]]) -> int:
        """Send (task, message, task id) triples over one connection; how many were sent.

        Raises:
            BrokerUnreachable: Some were not sent; publishing the same ids again is safe.
        """
        sent = 0
        try:
            with self._app.producer_or_acquire() as producer:
                for task, message, task_id in messages:
                    self._send(producer, task, message, task_id)
                    sent += 1
        except (OperationalError, OSError) as e:
            raise BrokerUnreachable(f"{mask_url(self._url)} cannot be reached after {sent} messages: {e}") from e
        return sent

    def result(self, task_id: str) -> Any:
        """Celery's ``AsyncResult`` of the id."""
        return self._app.AsyncResult(task_id)

    def close(self) -> None:
        """Close the connections."""
        self._app.close()

    def _send(self, producer: Any, task: str, message: Mapping[str, Any], task_id: str) -> None:
        self._app.send_task(
            task,
            args=[dict(message)],
            task_id=task_id,
            queue=QUEUE_OF_TASK[task],
            producer=producer,
            headers={SENT_AT_HEADER: time.time()},
            argsrepr=redacted([message], {}),
            kwargsrepr="{}",
        )
