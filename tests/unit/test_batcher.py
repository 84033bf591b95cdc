"""A Batcher closes a batch at whichever limit it meets first."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.batching import Batcher, BatchLimits, Size


def batcher(*, max_messages: int = 10, max_tokens: int = 100, max_wait_s: float = 1.0) -> Batcher[int]:
    return Batcher(BatchLimits(max_messages=max_messages, max_tokens=max_tokens, max_wait_s=max_wait_s))


def batcher_holding(*tokens: int, **limits: int) -> Batcher[int]:
    """Messages of one pair each, numbered from 0."""
    holding = batcher(**limits)
    for number, longest in enumerate(tokens):
        holding.add(number, size=Size(pairs=1, longest=longest), now=0.0)
    return holding


def test_closes_when_padding_the_next_message_would_exceed_the_token_limit() -> None:
    # 2 x 40 = 80 padded tokens fit; a third would make 3 x 40 = 120.
    assert batcher_holding(40, 30, 10).take() == [0, 1]


def test_counts_every_pair_as_long_as_the_longest() -> None:
    # 10 + 10 + 50 are 70 tokens, but 150 once padded.
    assert batcher_holding(10, 10, 50).take() == [0, 1]


def test_closes_at_the_limit_of_messages() -> None:
    assert batcher_holding(*[1] * 12, max_messages=5).take() == [0, 1, 2, 3, 4]


def test_a_message_beyond_the_token_limit_leaves_by_itself() -> None:
    holding = batcher_holding(500, 10)
    assert (holding.take(), holding.take()) == ([0], [1])


def test_an_empty_one_gives_nothing_and_is_never_overdue() -> None:
    assert batcher().take() == []
    assert batcher().overdue_at() == math.inf


def test_is_overdue_when_its_oldest_message_has_waited_long_enough() -> None:
    holding = batcher(max_wait_s=0.5)
    holding.add(1, size=Size(pairs=1, longest=1), now=3.0)
    holding.add(2, size=Size(pairs=1, longest=1), now=4.0)
    assert holding.overdue_at() == 3.5


@pytest.mark.parametrize(
    ("tokens", "full"), [([], False), ([40], False), ([40, 40], False), ([50, 50], True), ([40, 40, 40], True)]
)
def test_is_full_when_another_message_could_not_join(tokens: list[int], full: bool) -> None:
    assert batcher_holding(*tokens).is_full() is full


def test_is_full_at_the_limit_of_messages() -> None:
    assert batcher_holding(1, 1, max_messages=2).is_full()


def test_a_message_that_must_be_alone_shares_no_batch() -> None:
    holding = batcher()
    for name in range(4):
        holding.add(name, size=Size(pairs=1, longest=1), now=0.0, alone=name == 1)
    assert holding.is_full()
    assert [holding.take() for _ in range(3)] == [[0], [1], [2, 3]]


def test_forgets_what_it_is_told_to() -> None:
    holding = batcher_holding(50, 50, 50)
    assert holding.clear() == [0, 1, 2]
    assert not holding
    assert not holding.is_full()


messages = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 60), st.booleans()), max_size=40)


@given(messages, st.integers(1, 8), st.integers(1, 300))
def test_every_message_leaves_once_within_the_limits_and_in_order(
    waiting: list[tuple[int, int, bool]], max_messages: int, max_tokens: int
) -> None:
    holding = batcher(max_messages=max_messages, max_tokens=max_tokens)
    for number, (pairs, longest, alone) in enumerate(waiting):
        holding.add(number, size=Size(pairs=pairs, longest=longest), now=0.0, alone=alone)
    left: list[int] = []
    while holding:
        batch = holding.take()
        assert 1 <= len(batch) <= max_messages
        assert len(batch) == 1 or not any(waiting[i][2] for i in batch)
        padded = sum(waiting[i][0] for i in batch) * max(waiting[i][1] for i in batch)
        assert len(batch) == 1 or padded <= max_tokens
        left += batch
    assert left == list(range(len(waiting)))
