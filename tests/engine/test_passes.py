"""Passes hold every pair once, within the budget, without padding that sorting could save."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.passes import TokenBudget, halves, plan

LENGTHS = st.lists(st.integers(1, 512), max_size=60)


@given(lengths=LENGTHS, max_tokens=st.integers(1, 5000))
def test_every_pair_is_in_one_pass_and_passes_keep_to_the_budget(lengths: list[int], max_tokens: int) -> None:
    passes = plan(lengths, max_tokens=max_tokens)
    assert sorted(index for indices in passes for index in indices) == list(range(len(lengths)))
    assert all(len(indices) == 1 or len(indices) * max(lengths[i] for i in indices) <= max_tokens for indices in passes)


@given(lengths=LENGTHS)
def test_longer_pairs_go_first(lengths: list[int]) -> None:
    order = [lengths[index] for indices in plan(lengths, max_tokens=512) for index in indices]
    assert order == sorted(lengths, reverse=True)


def test_a_pass_is_closed_when_one_more_padded_pair_would_exceed_the_budget() -> None:
    # 2 x 40 = 80 fit; a third would make 3 x 40 = 120.
    assert plan([40, 30, 10], max_tokens=100) == [[0, 1], [2]]


def test_halves_of_one_pass_lose_nothing() -> None:
    assert halves([4, 3, 2, 1, 0]) == ([4, 3, 2], [1, 0])


def test_a_budget_falls_to_half_of_what_failed_and_never_below_one() -> None:
    budget = TokenBudget(1000)
    budget.shrink(800)
    assert budget.tokens == 400
    for _ in range(20):
        budget.shrink(1)
    assert budget.tokens == 1


def test_a_budget_never_grows_by_shrinking() -> None:
    budget = TokenBudget(1000)
    budget.shrink(200)
    budget.shrink(900)
    assert budget.tokens == 100
