"""How Celery sees a message of ours: never with its text, and refused early when it is no message at all."""

from collections.abc import Callable, Mapping
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
        self._argsrepr = self._request_dict["argsrepr"] = redacted(self._args, self._kwargs)
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
    def payload(self) -> Any:
        """The body, decoded once: positional and named arguments, and what follows the task."""
        return self._payload


def strategy(task: Any, app: Any, consumer: Any) -> Callable[..., Any]:
    """Celery's own strategy behind a look at the message's shape, whose absence would surface in the midst of a batch.

    Raises:
        InvalidTaskError: By what is returned, for a message that cannot be a task.
    """
    handle = stock.default(task, app, consumer)

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> Any:
        if (problem := _problem(message)) is not None:
            raise InvalidTaskError(problem)
        return handle(message, body, ack, reject, callbacks, **options)

    return on_message


def _problem(message: Any) -> str | None:
    """Why this is no message of Celery's protocol 1 or 2, if it is none."""
    match message.payload:
        case [list(), dict(), dict() | None as embed]:
            return _problem_of_headers(message.headers) or _problem_of_embed(embed or {})
        case {"args": list() | None, "kwargs": dict() | None} as fields:
            return _problem_of_headers({**(message.headers or {}), **fields}) or _problem_of_embed(fields)
        case _:
            return "the body is not [args, kwargs, embed] as Celery's message protocol 2 has it"


def _problem_of_headers(headers: Mapping[str, Any]) -> str | None:
    match headers.get("id"):
        case str() as id_ if id_:
            pass
        case None:
            return "the header 'id' is missing"
        case _:
            return "the header 'id' is not a text"
    if not isinstance(headers.get("retries"), int | None):
        return "the header 'retries' is not a whole number"
    if not isinstance(headers.get("timelimit"), list | tuple | None):
        return "the header 'timelimit' is not a pair"
    return None


def _problem_of_embed(embed: Mapping[str, Any]) -> str | None:
    for name in ("callbacks", "errbacks", "chain"):
        value = embed.get(name)
        if value is not None and not (isinstance(value, list) and all(map(_is_signature, value))):
            return f"{name!r} is not a list of signatures"
    if embed.get("chord") is not None and not _is_signature(embed["chord"]):
        return "'chord' is not a signature"
    return None


def _is_signature(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)
