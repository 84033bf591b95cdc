"""What is shown in place of a message: lengths and digests, never a text."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

_SHOWN: Final = ("source", "ref", "label_set")


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
    shown = "".join(f", {name}={_short(body[name])}" for name in _SHOWN if name in body)
    labels = body.get("labels")
    count = f", {len(labels)} labels" if isinstance(labels, list) else ""
    return f"<{len(text)} chars, blake2b:{_short_digest(text)}{count}{shown}>"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 32 else f"{text[:31]}…"


def _short_digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
