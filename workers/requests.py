"""How Celery sees a message of ours: never with its text, and refused early when it is no message at all."""

from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.utils.log import get_logger
from celery.worker import strategy as stock
from celery.worker.request import Request as StockRequest

from tagging.redaction import redacted

logger = get_logger(__name__)


class Request(StockRequest):  # type: ignore[misc]  # celery ships no types
    """A request whose arguments are shown redacted wherever Celery shows them, whatever the sender put there."""

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self.acknowledged: bool
        args, kwargs, _ = message.payload
        self._argsrepr = self._request_dict["argsrepr"] = redacted(args, kwargs)
        self._kwargsrepr = self._request_dict["kwargsrepr"] = "{}"

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002  # `inspect active` asks for the unsafe form
        """What ``inspect active`` and ``inspect reserved`` show."""
        return super().info(safe=True)

    def acknowledge(self) -> None:
        """Acknowledge at once; called on the hub thread only.

        The stock method queues the acknowledgement behind the hub, which a graceful stop has halted by the time the
        last batch is done: the broker would deliver answered messages again. ADR-0002.
        """
        if not self.acknowledged:
            self._message.ack_log_error(logger, self._connection_errors)
            self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        """Give the message back, or to the broker's dead letters; called on the hub thread only."""
        if not self.acknowledged:
            self._message.reject_log_error(logger, self._connection_errors, requeue=requeue)
            self.acknowledged = True
            self.send_event("task-rejected", requeue=requeue)

    @property
    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """The positional and named arguments, decoded once."""
        args, kwargs, _ = self._message.payload
        return args, kwargs


def strategy(task: Any, app: Any, consumer: Any) -> Callable[..., Any]:
    """Celery's own strategy behind a look at the body's shape, whose absence would end the worker's loop."""
    handle = stock.default(task, app, consumer)

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> Any:
        payload = message.payload
        if body is None and not _is_well_formed(payload):
            raise InvalidTaskError("the body is not [args, kwargs, embed] as Celery's message protocol 2 has it")
        return handle(message, body, ack, reject, callbacks, **options)

    return on_message


def _is_well_formed(payload: object) -> bool:
    match payload:
        case [list(), dict(), dict() | None]:
            return True
        case _:
            return False
