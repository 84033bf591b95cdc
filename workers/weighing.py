"""What a message will cost the device, guessed before anything about it is checked."""

from collections.abc import Mapping
from typing import Any, Final

from tagging.labels import LabelBook, LabelSet
from tagging.long_text import DEFAULT_OVERLAP, LongText
from tagging.names import TAG_MANY
from workers.batching import Size

_PAIR_OVERHEAD: Final = 8
"""Special tokens and a short template around a text and its label."""
_NOTHING: Final = Size(pairs=1, longest=1)


def weigh(task: str, body: object, *, book: LabelBook, max_length: int) -> Size:
    """The pairs that the message asks about and the tokens of its longest one; next to nothing where it is wrong."""
    if not isinstance(body, dict):
        return _NOTHING
    texts = body.get("items") if task == TAG_MANY else [body]
    items = [{**body, **item} for item in texts if isinstance(item, dict)] if isinstance(texts, list) else []
    pairs = sum(_pairs(item, book, max_length) for item in items)
    longest = max((_tokens(item.get("text")) for item in items), default=1)
    return Size(pairs=max(pairs, 1), longest=min(longest + _PAIR_OVERHEAD, max_length))


def tokens_of_pair(text: str, long_text: LongText, *, max_length: int) -> int:
    """About how many tokens the device computes for a pair of this text, in all of its windows."""
    tokens = _tokens(text) + _PAIR_OVERHEAD
    return min(tokens, max_length) if long_text.rule == "truncate" else tokens


def _pairs(item: Mapping[str, Any], book: LabelBook, max_length: int) -> int:
    labels, name = item.get("labels"), item.get("label_set")
    if isinstance(labels, list):
        return len(labels) * _windows(item, None, max_length)
    known = next((s for s in book if s.name == name), None)
    return len(known.labels) * _windows(item, known, max_length) if known else 0


def _windows(item: Mapping[str, Any], known: LabelSet | None, max_length: int) -> int:
    """How many windows the text is read in."""
    rule = item.get("long_text") or (known.long_text.rule if known else "truncate")
    tokens, room = _tokens(item.get("text")), max_length - _PAIR_OVERHEAD
    if rule == "truncate" or tokens <= room:
        return 1
    overlap = item.get("overlap")
    overlap = min(overlap if isinstance(overlap, int) else DEFAULT_OVERLAP, room // 2)
    return 1 + -(-(tokens - room) // (room - overlap))


def _tokens(text: object) -> int:
    """About one token a Chinese character and one for three Latin letters."""
    if not isinstance(text, str):
        return 1
    return len(text) // 3 + 1 if text.isascii() else len(text)
