"""How a worker ends when it is told to at once; and messages that never reach a batch, which are parked."""

from types import SimpleNamespace
from typing import Any, Final

import structlog
from celery import platforms, signals
from celery.exceptions import WorkerTerminate
from celery.platforms import EX_FAILURE
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer as StockConsumer
from kombu.exceptions import ContentDisallowed

from tagging.errors import InvalidMessage, TagmillError, WorkerCrashed
from tagging.names import QUEUE_DEAD
from workers.clerk import Clerk
from workers.ports import DeadLetter, DeadLetters
from workers.verdicts import Dead

log = structlog.get_logger()

_KEPT_CHARS: Final = 100_000


def end_outside_signal_handlers(**_: Any) -> None:
    """From now on SIGQUIT and Ctrl-C leave a note, which the loop and a drain read before their next step.

    Celery 5.7 cancels its consumers and stops the pool from within the handler. What the signal interrupted is often
    holding the lock that this needs, py-amqp's for writing a frame or the event dispatcher's: the worker then answers
    everything and never ends (seen on both brokers). ADR-0002.
    """
    platforms.signals["SIGQUIT"] = _end_at_once
    platforms.signals["SIGINT"] = _end_after_what_was_fetched


def _end_at_once(*_: Any) -> None:
    if worker_state.should_terminate:
        raise WorkerTerminate(EX_FAILURE)  # asked twice: not even the loop is waited for
    worker_state.should_terminate = EX_FAILURE


def _end_after_what_was_fetched(*_: Any) -> None:
    worker_state.should_stop = EX_FAILURE
    platforms.signals["SIGINT"] = _end_at_once


class Consumer(StockConsumer):  # type: ignore[misc]  # celery ships no types
    """Celery's consumer, except that it drops nothing and logs no body.

    The stock one logs an undecodable message with its body and acknowledges it, which is how tickets vanish.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._parking = Clerk(unwritten="message.not_parked")
        self._announcements = Clerk(unwritten="result.not_stored")
        super().__init__(*args, **options)

    def shutdown(self) -> None:
        """As Celery's; a worker that was ended at once says so by its exit code, which Celery 5.7 leaves at 0."""
        if worker_state.should_terminate:
            self.controller.exitcode = worker_state.should_terminate
        super().shutdown()
        self._parking.close()
        self._announcements.close()

    def ensure_connected(self, conn: Any) -> Any:
        """As Celery's, which waits for the broker outside the loop: each attempt shows that the worker lives."""
        ensure = conn.ensure_connection

        def ensure_alive(*args: Any, callback: Any, **options: Any) -> Any:
            def between_attempts() -> None:
                self.app.pulse.beat()
                callback()

            return ensure(*args, callback=between_attempts, **options)

        conn.ensure_connection = ensure_alive
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **options: Any) -> Any:
        """Celery's handler; what it cannot even look at is parked, where the stock consumer would end the worker."""
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Any) -> None:
            self.app.pulse.beat()
            if message.delivery_info.get("exchange") == QUEUE_DEAD:
                self._park(message, _given_up(message), None)
                return
            try:
                handle(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as e:  # noqa: BLE001  # whatever a stranger's headers can provoke
                self._park(message, InvalidMessage(f"the headers cannot be understood: {type(e).__name__}"), e)

        return on_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """The body is not what its content type says, or of a type that is not accepted."""
        if isinstance(exc, ContentDisallowed):
            reason = f"content type {message.content_type!r} is refused; send JSON"
        else:
            reason = f"the body cannot be read as {message.content_type or 'anything'}: {type(exc).__name__}"
        self._park(message, InvalidMessage(reason), exc)

    def on_unknown_message(self, body: object, message: Any) -> None:
        """Not a Celery message."""
        self._park(message, InvalidMessage("not a Celery message: the header 'task' is missing"), None)

    def on_unknown_task(self, body: object, message: Any, exc: Exception) -> None:
        """A task that this worker does not have."""
        name = (message.headers or {}).get("task", "?")
        cause = InvalidMessage(
            f"no task {str(name)[:80]!r} here; this worker does tagmill.tag_ticket, "
            "tagmill.tag_comment and tagmill.tag_many"
        )
        self._park(message, cause, exc)

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:
        """A Celery message whose parts do not fit together."""
        if isinstance(exc, ContentDisallowed):
            self.on_decode_error(message, exc)
        else:
            self._park(message, InvalidMessage(str(exc)), exc)

    def _park(self, message: Any, cause: TagmillError, exc: Exception | None) -> None:
        headers = message.headers or {}
        id_ = str(headers.get("id") or message.properties.get("correlation_id") or message.delivery_tag)
        name = str(headers.get("task", ""))
        letter = DeadLetter(
            id=id_[:256],
            task=name[:256],
            queue=str(message.delivery_info.get("routing_key") or ""),
            reason=f"{type(cause).__name__}: {cause}",
            attempts=1,
            payload=_as_text(message.body),
        )

        def park() -> None:
            self._dead_letters.park([letter])
            log.warning("message.parked", id=id_, reason=str(cause), attempts=1)
            self.pool.on_hub(finish)

        def finish() -> None:
            message.ack_log_error(log, self.connection_errors)
            self._announce_failure(id_, name, cause, headers, message)
            signals.task_rejected.send(sender=self, message=message, exc=exc)
            if isinstance(cause, InvalidMessage):  # what RabbitMQ gives up says nothing about this worker
                self.pool.look_at([Dead(cause=cause)])

        # Unacknowledged until it is parked: should this worker end before, the broker brings it back.
        self._parking.put(id_, park)

    @property
    def _dead_letters(self) -> DeadLetters:
        letters: DeadLetters = self.app.dead_letters
        return letters

    def _announce_failure(
        self, id_: str, name: str, error: TagmillError, headers: dict[str, Any], message: Any
    ) -> None:
        if "id" not in headers:
            return  # nobody can be waiting for it
        request = SimpleNamespace(
            id=id_,
            name=name,
            chord=None,
            errbacks=None,
            root_id=headers.get("root_id"),
            group=headers.get("group"),
            correlation_id=message.properties.get("correlation_id"),
            reply_to=message.properties.get("reply_to"),
        )
        self._announcements.put(id_, lambda: self.app.backend.mark_as_failure(id_, error, request=request))
        if self.event_dispatcher:
            self.event_dispatcher.send("task-received", uuid=id_, name=name, args="<unreadable>", kwargs="{}")
            self.event_dispatcher.send("task-failed", uuid=id_, exception=repr(error), traceback="")


def _given_up(message: Any) -> TagmillError:
    """Why RabbitMQ put the message on its dead letters."""
    deaths = (message.headers or {}).get("x-death") or [{}]
    return WorkerCrashed(f"RabbitMQ gave it up: {deaths[0].get('reason', 'no reason said')}; each delivery came back")


def _as_text(body: object) -> str:
    text = body.decode("utf-8", "backslashreplace") if isinstance(body, bytes | bytearray) else str(body)
    return text[:_KEPT_CHARS]
