"""Digests that name a text, a hypothesis or a label set without showing it.

All are BLAKE2b (RFC 7693). With a ``pepper`` they are keyed, so that nobody who reads the cache can
guess a short text back out of its digest; changing the pepper forgets everything cached at once.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

_SIZE = 16
_HYPOTHESIS_SIZE = 8  # it only has to be told from the others that are asked about the same text


def text_digest(text: str, *, pepper: str = "") -> str:
    """32 hex digits that stand for the text."""
    return _digest([text], person=b"tagmill.text", pepper=pepper).hex()


# The same hypotheses are asked about text after text.
@lru_cache(maxsize=1024)
def hypothesis_digests(hypotheses: tuple[str, ...], *, pepper: str = "") -> Mapping[bytes, str]:
    """The hypotheses in their order, each under the 8 bytes that stand for it."""
    return MappingProxyType(
        {
            _digest([hypothesis], person=b"tagmill.hypoth", pepper=pepper, size=_HYPOTHESIS_SIZE): hypothesis
            for hypothesis in hypotheses
        }
    )


def label_set_digest(hypotheses: Iterable[str], *, pepper: str = "") -> str:
    """32 hex digits that stand for a set of hypotheses, whatever their order.

    Hypotheses rather than labels: two templates over the same labels ask the model different questions.
    """
    return _label_set_digest(tuple(hypotheses), pepper)


@lru_cache(maxsize=1024)
def _label_set_digest(hypotheses: tuple[str, ...], pepper: str) -> str:
    return _digest(sorted(hypotheses), person=b"tagmill.labels", pepper=pepper).hex()


def _digest(parts: Iterable[str], *, person: bytes, pepper: str, size: int = _SIZE) -> bytes:
    h = hashlib.blake2b(digest_size=size, key=pepper.encode()[:64], person=person)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        h.update(len(data).to_bytes(4, "big"))
        h.update(data)
    return h.digest()
