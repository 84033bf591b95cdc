"""A bucket holds its pass, there are few of them, and what is padded can be told from what is not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.engines.buckets import BUCKETED_TOKENS, Bucket, padded_to, small_bucket, small_buckets, snug
from workers.engines.network import Packed
from workers.engines.passes import size_of

LENGTHS = st.lists(st.integers(2, 512), min_size=1, max_size=300)


@given(lengths=LENGTHS)
def test_a_bucket_holds_its_pass(lengths: list[int]) -> None:
    size = size_of(lengths)
    for bucket in (small_bucket(size), snug(size)):
        assert bucket is None or (bucket.pairs >= size.pairs and bucket.length >= size.longest)


@given(lengths=LENGTHS)
def test_each_bucket_of_a_small_pass_is_known_beforehand(lengths: list[int]) -> None:
    bucket = small_bucket(size_of(lengths))
    assert bucket is None or bucket in small_buckets(max_length=512, max_tokens=BUCKETED_TOKENS)


def test_there_are_few_buckets() -> None:
    assert len(small_buckets(max_length=512, max_tokens=16384)) == 45
    assert len(small_buckets(max_length=60, max_tokens=16384)) == 15
    assert small_buckets(max_length=60, max_tokens=1) == [Bucket(1, 64), Bucket(1, 32)]


def test_a_longer_pair_than_any_bucket_is_padded_by_itself() -> None:
    size = size_of([600])
    assert small_bucket(size) is None
    assert snug(size) == Bucket(1, 600)


def test_rows_are_padded_at_their_end_and_empty_rows_have_one_token() -> None:
    rows = Packed(*(np.array(values, dtype=np.int32) for values in ([2, 7, 3, 2, 3], [0, 0, 1, 0, 1], [3, 2])))
    rectangle = padded_to(Bucket(4, 4), rows)
    assert rectangle.ids.reshape(4, 4).tolist() == [[2, 7, 3, 0], [2, 3, 0, 0], [0] * 4, [0] * 4]
    assert rectangle.segments.reshape(4, 4).tolist() == [[0, 0, 1, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]
    assert rectangle.lengths.tolist() == [3, 2, 1, 1]
