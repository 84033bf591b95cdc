"""Puts tasks on the queue."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from celery import Celery
from celery.states import READY_STATES, SUCCESS
from kombu.exceptions import OperationalError

from producers.app import make_app
from tagging.errors import BrokerUnreachable
from tagging.names import QUEUE_OF_TASK, SENT_AT_HEADER
from tagging.redaction import redacted
from tagging.settings import Settings
from tagging.urls import mask_url
from tagging.wording import counted

_POLL_S: Final = 0.05
_CLOSE_S: Final = 1.0


class Publisher:
    """Publishes messages of the contract. The same id published twice has one answer. Of one thread."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.broker.url
        self._results: Celery = make_app(settings)
        # Publishing needs no results: with a backend Celery would subscribe to each task's result as it is sent.
        self._app: Celery = make_app(settings)
        self._app.conf.result_backend = "disabled://"
        self._producer: Any = None

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
        return sum(1 for _ in self.publishing(messages))

    def publishing(self, messages: Iterable[tuple[str, Mapping[str, Any], str]]) -> Iterator[str]:
        """The ids of (task, message, task id) triples, each once the broker has confirmed it.

        Raises:
            BrokerUnreachable: Whether the next one was stored is not known; those after it were not sent.
        """
        sent = 0
        try:
            with self._connected() as producer:
                for task, message, task_id in messages:
                    self._send(producer, task, message, task_id)
                    sent += 1
                    yield task_id
        except (OperationalError, OSError) as e:
            raise BrokerUnreachable(
                f"{mask_url(self._url)} cannot be reached after {counted(sent, 'message')}: {e}"
            ) from e

    def waiting(self, queue: str) -> int:
        """How many messages the queue holds, those that a worker has fetched not among them.

        Raises:
            BrokerUnreachable: Nobody knows.
        """
        try:
            with self._connected() as producer:
                connection = producer.connection
                with connection.channel() as channel:
                    try:
                        return int(channel.queue_declare(queue=queue, passive=True).message_count)
                    except connection.channel_errors:
                        return 0  # nobody has declared it so far
        except (OperationalError, OSError) as e:
            raise BrokerUnreachable(f"{mask_url(self._url)} cannot be reached: {e}") from e

    def result(self, task_id: str) -> Any:
        """Celery's ``AsyncResult`` of the id."""
        return self._results.AsyncResult(task_id)

    def settled(self, task_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The results that are there by now, by task id; ``{"error"}`` where a task failed.

        Raises:
            BrokerUnreachable: The results backend did not answer.
        """
        backend = self._results.backend
        try:
            metas = {id_: backend.get_task_meta(id_) for id_ in task_ids}
        except (OperationalError, OSError, *getattr(backend, "connection_errors", ())) as e:
            raise BrokerUnreachable(f"the results backend cannot be reached: {type(e).__name__}") from e
        return {
            id_: meta["result"] if meta["status"] == SUCCESS else {"error": str(meta["result"])}
            for id_, meta in metas.items()
            if meta["status"] in READY_STATES
        }

    def discard(self, task_ids: Iterable[str]) -> None:
        """Remove the results of these tasks, which their reader has kept.

        Raises:
            BrokerUnreachable: The results backend did not answer; they expire by themselves.
        """
        backend = self._results.backend
        try:
            for id_ in task_ids:
                backend.forget(id_)
        except (OperationalError, OSError, *getattr(backend, "connection_errors", ())) as e:
            raise BrokerUnreachable(f"the results backend cannot be reached: {type(e).__name__}") from e

    def forget(self, task_ids: Iterable[str]) -> int:
        """Remove the results of these tasks; how many there were."""
        found = [id_ for id_ in task_ids if self._results.backend.get_task_meta(id_)["status"] in READY_STATES]
        for id_ in found:
            self._results.backend.forget(id_)
        return len(found)

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
        self._disconnect()
        self._app.close()
        self._results.close()

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A producer on this publisher's one connection, which is given up when anything on it fails.

        An answer may still be on its way there: whoever used it next would take it for theirs.
        """
        if self._producer is None:
            self._producer = self._app.amqp.Producer(self._app.connection_for_write(), auto_declare=False)
        try:
            with self._producer.connection._reraise_as_library_errors():
                # Once: waiting for a broker is the caller's business.
                self._producer.connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
                yield self._producer
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.connection.collect(socket_timeout=_CLOSE_S)

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
