"""What a cache keeps: which logits may be kept, and their bytes.

One byte with the format's version, then two little-endian float32 for each hypothesis: entailment, contradiction.
"""

import math
import struct
from itertools import chain
from typing import Final

from workers.ports import CachedLogits, Logit

_VERSION: Final = 1
_PAIR_BYTES: Final = 8
_FLOAT32_MAX: Final = 3.4028234663852886e38


def keepable(logits: CachedLogits) -> bool:
    """Whether the logits may be remembered: NaN and Inf would be served long after the device has recovered."""
    sizes = [*map(abs, chain.from_iterable(logits))]
    # A sum with NaN or Inf in it is not finite, and only without NaN does max mean anything.
    return bool(sizes) and math.isfinite(sum(sizes)) and max(sizes) <= _FLOAT32_MAX


def pack(logits: CachedLogits) -> bytes:
    """The bytes of ``keepable`` logits."""
    flat = list(chain.from_iterable(logits))
    return struct.pack(f"<B{len(flat)}f", _VERSION, *flat)


def unpack(value: bytes) -> tuple[Logit, ...] | None:
    """The logits in these bytes, or None where something else wrote them."""
    if len(value) < 1 + _PAIR_BYTES or (len(value) - 1) % _PAIR_BYTES or value[0] != _VERSION:
        return None
    logits = tuple(Logit(*pair) for pair in struct.iter_unpack("<2f", value[1:]))
    return logits if keepable(logits) else None
