"""How Celery sees a message of ours: never with its text, and refused early when it is no message at all."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celery.exceptions import InvalidTaskError
from celery.utils.log import get_logger
from celery.worker import strategy as stock
from celery.worker.request import Request as StockRequest

logger = get_logger(__name__)

_SHOWN: Final = ("kind", "source", "ref", "revision", "label_set", "labels", "multi_label")


def redacted(args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """What Flower, events and logs show in place of the arguments: lengths and digests, never a text."""
    body = args[0] if args else kwargs
    if not isinstance(body, Mapping):
        return f"<{type(body).__name__}>"
    items = body.get("items")
    if isinstance(items, list):
        texts = [str(item.get("text")) for item in items if isinstance(item, Mapping)]
        return f"<{len(items)} texts, {sum(map(len, texts))} chars, blake2b:{_short_digest(''.join(texts))}>"
    text = str(body.get("text", ""))
    shown = "".join(f", {name}={_short(body[name])}" for name in ("source", "ref", "label_set") if name in body)
    labels = body.get("labels")
    count = f", {len(labels)} labels" if isinstance(labels, list) else ""
    return f"<{len(text)} chars, blake2b:{_short_digest(text)}{count}{shown}>"


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


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 32 else f"{text[:31]}…"


def _short_digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
