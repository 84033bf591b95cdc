"""From a request's body to submissions: read, checked as a worker would, and held to what its key may send."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any, Final

import orjson

from ledger.intake import Submission
from ledger.keys import ApiKey
from producers.http.problems import Problem, translated
from tagging.documents import DEFAULT_KIND
from tagging.errors import InvalidMessage
from tagging.messages import Decoder
from tagging.names import TASK_OF_KIND

MAX_TASKS: Final = 512
"""Messages in one request."""
_MAX_KEY_CHARS: Final = 200
_MOST_COMPARED: Final = 48
"""Labels among which those to be merged are looked for; more than that is another mistake."""
_FIELD: Final = re.compile(r"([\w.]{1,80}): ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads what callers send."""

    decoder: Decoder

    def one(self, body: bytes, key: ApiKey, *, idempotency_key: str | None) -> Submission:
        """The submission of a body that holds one message.

        Raises:
            Problem: It does not, or the message cannot be done.
        """
        message = parsed(body)
        if not isinstance(message, dict):
            raise _invalid(
                [InvalidMessage(f"message: expected a JSON object, got {type(message).__name__}")], [message]
            )
        return self._submissions([message], key, idempotency_key)[0]

    def many(self, body: bytes, key: ApiKey, *, idempotency_key: str | None) -> list[Submission]:
        """The submissions of a body that holds one message or a list of them; all are good, or none is returned.

        Raises:
            Problem: Names every message that is wrong.
        """
        read = parsed(body)
        messages = read if isinstance(read, list) else [read]
        if not 1 <= len(messages) <= MAX_TASKS:
            text = f"tasks: {len(messages)} given, send 1 to {MAX_TASKS} in a request"
            raise Problem(kind="invalid-message", detail=text, chinese=f"每次请求请发送 1 至 {MAX_TASKS} 条消息")
        return self._submissions(messages, key, idempotency_key)

    def _submissions(self, messages: Sequence[object], key: ApiKey, idempotency_key: str | None) -> list[Submission]:
        submissions: list[Submission] = []
        errors: list[InvalidMessage | None] = []
        for number, message in enumerate(messages):
            name = idempotency_key if idempotency_key is None or len(messages) == 1 else f"{idempotency_key}/{number}"
            try:
                submissions.append(self._submission(message, key, name))
                errors.append(None)
            except InvalidMessage as e:
                errors.append(e)
        if any(errors):
            raise _invalid(errors, messages)
        return submissions

    def _submission(self, message: object, key: ApiKey, idempotency_key: str | None) -> Submission:
        if not isinstance(message, dict):
            raise InvalidMessage(f"message: expected a JSON object, got {type(message).__name__}")
        if "id" in message:
            raise InvalidMessage("id: is given here; send an Idempotency-Key to have a request taken once")
        if key.source is not None:
            message = {"source": key.source, **message}
            if message["source"] != key.source:
                raise Problem(
                    kind="forbidden",
                    detail=f"this key sends for the source {key.source!r} only",
                    chinese=f"此密钥只能用于来源 {key.source!r}",
                )
        task = _task(message.get("kind", DEFAULT_KIND))
        id_ = str(uuid.uuid4())
        self.decoder.one(task, message, task_id=id_)
        return Submission(id=id_, task=task, message=message, idempotency_key=idempotency_key)


def _task(kind: object) -> str:
    for known, task in TASK_OF_KIND.items():
        if kind == known:
            return task
    raise InvalidMessage("kind: expected ticket or comment")


def parsed(body: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        Problem: It is none.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise Problem(kind="not-json", detail=f"line {e.lineno}, column {e.colno}: {e.msg}") from None


def checked_key(value: str | None) -> str | None:
    """The Idempotency-Key header.

    Raises:
        Problem: It cannot be one.
    """
    if value is None:
        return None
    if not (1 <= len(value) <= _MAX_KEY_CHARS and value.isprintable()):
        text = f"Idempotency-Key: send 1 to {_MAX_KEY_CHARS} printable characters"
        raise Problem(
            kind="invalid-message", detail=text, chinese=f"Idempotency-Key：请发送 1 至 {_MAX_KEY_CHARS} 个可见字符"
        )
    return value


def merges(labels: Sequence[str], surplus: int) -> list[list[str]]:
    """The pairs of labels that are most alike, as many as there are labels too many: those are worth merging."""
    pairs = combinations(list(dict.fromkeys(labels))[:_MOST_COMPARED], 2)
    alike = sorted(pairs, key=lambda pair: SequenceMatcher(None, *pair).ratio(), reverse=True)
    return [list(pair) for pair in alike[:surplus]]


def _invalid(errors: Sequence[InvalidMessage | None], messages: Sequence[object]) -> Problem:
    wrong = [{"index": i, **_explained(str(error), messages[i])} for i, error in enumerate(errors) if error is not None]
    first = str(next(filter(None, errors)))
    alone = (
        {name: value for name, value in wrong[0].items() if name in ("field", "merge")} if len(messages) == 1 else {}
    )
    return Problem(
        kind="invalid-message",
        detail=first if len(wrong) == 1 else f"{len(wrong)} messages are wrong; nothing was taken. The first: {first}",
        chinese="" if len(wrong) == 1 else f"{len(wrong)} 条消息有误，全部未接收。第一条：{translated(first)}",
        members={**alone, "errors": wrong},
    )


def _explained(text: str, message: object) -> dict[str, Any]:
    """What is wrong with one message: the field, the text, and which labels to merge where there are too many."""
    field = match[1] if (match := _FIELD.match(text)) else None
    explained: dict[str, Any] = {"detail": text} if field is None else {"field": field, "detail": text}
    labels = message.get("labels") if isinstance(message, dict) else None
    too_many = re.match(r"labels: (\d+) given, limit is (\d+)", text)
    if too_many and isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        surplus = int(too_many[1]) - int(too_many[2])
        if surplus <= _MOST_COMPARED:
            explained["merge"] = merges(labels, surplus)
    return explained
