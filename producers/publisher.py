"""Puts tasks on the queue."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from celery import Celery
from celery.states import READY_STATES, SUCCESS
from kombu.exceptions import OperationalError

from producers.app import make_app
from tagging.errors import BrokerUnreachable
from tagging.names import QUEUE_OF_TASK, SENT_AT_HEADER
from tagging.redaction import redacted
from tagging.settings import Settings, mask_url

_POLL_S: Final = 0.05


class Publisher:
    """Publishes messages of the contract. The same id published twice has one answer."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.broker.url
        self._results: Celery = make_app(settings)
        # Publishing needs no results: with a backend Celery would subscribe to each task's result as it is sent.
        self._app: Celery = make_app(settings)
        self._app.conf.result_backend = "disabled://"

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
        broker = self._app.connection_for_write()  # not connected; it knows its transport's errors
        try:
            with self._app.producer_or_acquire() as producer:
                for task, message, task_id in messages:
                    self._send(producer, task, message, task_id)
                    sent += 1
        except (OperationalError, OSError, *broker.connection_errors, *broker.channel_errors) as e:
            raise BrokerUnreachable(f"{mask_url(self._url)} cannot be reached after {sent} messages: {e}") from e
        return sent

    def result(self, task_id: str) -> Any:
        """Celery's ``AsyncResult`` of the id."""
        return self._results.AsyncResult(task_id)

    def answers(self, task_ids: Sequence[str], *, timeout_s: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids with their answers, as they come; ``{"error"}`` where a task failed, or did not finish in time."""
        waiting = dict.fromkeys(task_ids)
        deadline = time.monotonic() + timeout_s
        while waiting and time.monotonic() < deadline:
            for id_ in self._finished(list(waiting)):
                del waiting[id_]
                yield id_, self._answer(id_)
            if waiting:
                time.sleep(_POLL_S)
        for id_ in waiting:
            yield id_, {"error": f"no answer within {timeout_s:.0f} s"}

    def _finished(self, task_ids: Sequence[str]) -> list[str]:
        return [id_ for id_ in task_ids if self._results.backend.get_task_meta(id_)["status"] in READY_STATES]

    def _answer(self, task_id: str) -> dict[str, Any]:
        meta = self._results.backend.get_task_meta(task_id)
        return meta["result"] if meta["status"] == SUCCESS else {"error": str(meta["result"])}

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
        self._results.close()

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
