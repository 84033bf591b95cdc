"""Digests that name a text or a label set without showing it.

All are BLAKE2b (RFC 7693). With a ``pepper`` they are keyed, so that nobody who reads the cache can
guess a short text back out of its digest; changing the pepper forgets everything cached at once.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

_SIZE = 16


def text_digest(text: str, *, pepper: str = "") -> str:
    """32 hex digits that stand for the text."""
    return _digest([text], person=b"tagmill.text", pepper=pepper)


def label_set_digest(hypotheses: Iterable[str], *, pepper: str = "") -> str:
    """32 hex digits that stand for a set of hypotheses, whatever their order.

    Hypotheses rather than labels: two templates over the same labels ask the model different questions.
    """
    return _label_set_digest(tuple(hypotheses), pepper)


# The same set is asked about text after text.
@lru_cache(maxsize=1024)
def _label_set_digest(hypotheses: tuple[str, ...], pepper: str) -> str:
    return _digest(sorted(hypotheses), person=b"tagmill.labels", pepper=pepper)


def _digest(parts: Iterable[str], *, person: bytes, pepper: str) -> str:
    h = hashlib.blake2b(digest_size=_SIZE, key=pepper.encode()[:64], person=person)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        h.update(len(data).to_bytes(4, "big"))
        h.update(data)
    return h.hexdigest()
