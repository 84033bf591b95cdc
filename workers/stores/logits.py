"""What a shared cache and the ledger keep of a text: a record for each pair, one after the other, in any order.

A record has 16 bytes: the hypothesis' digest, then entailment and contradiction as little-endian float32. Where a
hypothesis occurs twice, because two workers computed it at once, the later record counts; they are equal.

In the ledger, which finds them by document, 16 bytes before them say of which text and model they are.
"""

import hashlib
from collections.abc import Collection, Mapping
from struct import Struct
from typing import Final

from workers.ports import Logit, TextKey

_RECORD: Final = Struct("<8s2f")
RECORD_BYTES: Final = _RECORD.size
DIGEST_BYTES: Final = 8
_STAMP_BYTES: Final = 16
_FLOAT32_MAX: Final = 3.4028234663852886e38


def keepable(logit: Logit) -> bool:
    """Whether the logits may be remembered: NaN and Inf would be served long after the device has recovered."""
    entailment, contradiction = logit
    # Neither comparison holds for NaN.
    return abs(entailment) <= _FLOAT32_MAX and abs(contradiction) <= _FLOAT32_MAX


def pack(pairs: Mapping[bytes, Logit]) -> bytes:
    """The records of those pairs that are ``keepable``."""
    return b"".join([_RECORD.pack(digest, *logit) for digest, logit in pairs.items() if keepable(logit)])


def pack_of(key: TextKey, pairs: Mapping[bytes, Logit]) -> bytes:
    """The records of ``pack`` behind what names their text and model."""
    return _stamp(key) + pack(pairs)


def unpack_of(key: TextKey, value: bytes, wanted: Collection[bytes]) -> dict[bytes, Logit]:
    """What these records say about the wanted hypotheses; nothing where they are of another text or model."""
    return unpack(value[_STAMP_BYTES:], wanted) if value.startswith(_stamp(key)) else {}


def unpack(value: bytes, wanted: Collection[bytes]) -> dict[bytes, Logit]:
    """What these records say about the wanted hypotheses; nothing where something else wrote the bytes."""
    if len(value) % RECORD_BYTES:
        return {}
    known = {digest: Logit(entailment, contradiction) for digest, entailment, contradiction in _records(value)}
    return {digest: known[digest] for digest in wanted if digest in known and keepable(known[digest])}


def _stamp(key: TextKey) -> bytes:
    h = hashlib.blake2b(digest_size=_STAMP_BYTES, person=b"tagmill.logits")
    for part in key:
        data = part.encode()
        h.update(len(data).to_bytes(4, "big") + data)
    return h.digest()


_records = _RECORD.iter_unpack
