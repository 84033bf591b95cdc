"""Padded passes in a few shapes, so that a GPU can replay a recorded pass instead of being told its every kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.engines.network import Packed
from workers.engines.passes import PassSize

LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512)
BUCKETED_TOKENS = 4096
"""A pass of up to so many tokens is padded to a bucket: there a GPU waits for its orders longer than it computes."""
GRAIN = 8
"""Lengths of larger passes are multiples of it, as matrix units like them."""


class Bucket(NamedTuple):
    """The shape of a padded pass."""

    pairs: int
    length: int  # tokens

    @property
    def tokens(self) -> int:
        return self.pairs * self.length


class Rectangle(NamedTuple):
    """Pairs padded to a bucket; a row without a pair counts as one token long, since attention to nothing is NaN."""

    ids: NDArray[np.int32]  # (pairs * length,)
    segments: NDArray[np.int32]  # (pairs * length,)
    lengths: NDArray[np.int32]  # (pairs,)


def small_bucket(size: PassSize) -> Bucket | None:
    """The bucket of a small pass, or None for a pass too large for any."""
    length = next((length for length in LENGTHS if length >= size.longest), None)
    if length is None:
        return None
    bucket = Bucket(1 << (size.pairs - 1).bit_length(), length)
    return bucket if bucket.tokens <= BUCKETED_TOKENS else None


def snug(size: PassSize) -> Bucket:
    """The least shape that holds a pass."""
    return Bucket(size.pairs, -(-size.longest // GRAIN) * GRAIN)


def small_buckets(*, max_length: int, max_tokens: int) -> list[Bucket]:
    """Every bucket that a small pass can have, largest first."""
    longest = next((length for length in LENGTHS if length >= max_length), LENGTHS[-1])
    budget = min(max_tokens, BUCKETED_TOKENS)
    found = [
        Bucket(1 << power, length)
        for length in LENGTHS
        if length <= longest
        for power in range(BUCKETED_TOKENS.bit_length())
        if power == 0 or (length << power) <= budget
    ]
    return sorted(found, key=lambda bucket: -bucket.tokens)


def padded_to(bucket: Bucket, rows: Packed, *, pad_id: int = 0) -> Rectangle:
    """The rows as a rectangle of the bucket's shape."""
    lengths = np.ones(bucket.pairs, dtype=np.int32)
    lengths[: len(rows.lengths)] = rows.lengths
    present = np.arange(bucket.length) < lengths[:, None]
    present[len(rows.lengths) :] = False
    ids = np.full(present.shape, pad_id, dtype=np.int32)
    segments = np.zeros(present.shape, dtype=np.int32)
    ids[present], segments[present] = rows.ids, rows.segments
    return Rectangle(ids.ravel(), segments.ravel(), lengths)
