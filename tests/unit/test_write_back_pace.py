"""An account is called no oftener than it allows, not while it asks for peace, and hardly while it is down."""

import pytest

from workers.writeback.pacing import Pace


def pace(max_per_minute: int = 60, *, failures: int = 3) -> Pace:
    return Pace(max_per_minute=max_per_minute, breaker_failures=failures, breaker_pause_s=30.0)


def opened() -> Pace:
    found = pace()
    for _ in range(3):
        found.failed(0.0)
    return found


def begin(one: Pace, now: float) -> bool:
    """Whether a write-back of one call may begin now; the call is made."""
    if one.wait_s(now) > 0:
        return False
    one.spend(1)
    return True


def test_a_minute_holds_as_many_calls_as_allowed_beside_the_first_burst():
    one = pace(60)
    made = sum(begin(one, second / 10) for second in range(600))
    assert 60 <= made <= 60 + 10


def test_what_takes_several_calls_is_paid_for_by_those_after_it():
    one = pace(60)
    assert one.wait_s(0.0) == 0
    one.spend(12)
    assert one.wait_s(0.0) == pytest.approx(3.0)


def test_each_that_waits_gets_a_moment_of_its_own():
    one = pace(60)
    one.spend(10)
    assert [one.wait_s(0.0) for _ in range(3)] == pytest.approx([1.0, 2.0, 3.0])


def test_peace_is_kept_for_as_long_as_it_was_asked_for():
    one = pace()
    one.asked_for_peace(0.0, for_s=120.0)
    one.asked_for_peace(1.0, for_s=5.0)
    assert one.wait_s(100.0) == pytest.approx(20.0)
    assert one.wait_s(121.0) == 0


def test_the_breaker_opens_with_the_last_of_so_many_failures_in_a_row_and_says_so_once():
    one = pace(failures=3)
    assert [one.failed(0.0), one.failed(0.0), one.failed(0.0), one.failed(0.0)] == [False, False, True, False]
    assert one.wait_s(1.0) > 0


def test_an_answer_in_between_begins_the_count_anew():
    one = pace(failures=2)
    one.failed(0.0)
    one.worked()
    assert one.failed(0.0) is False
    assert one.wait_s(0.0) == 0


def test_after_its_pause_one_may_try_and_the_others_wait_for_what_becomes_of_it():
    one = opened()
    assert one.wait_s(29.0) > 0
    assert one.wait_s(31.0) == 0
    assert one.wait_s(31.0) > 0


def test_a_try_that_fails_costs_another_pause():
    one = opened()
    assert one.wait_s(31.0) == 0
    one.failed(32.0)
    assert one.wait_s(61.0) > 0
    assert one.wait_s(63.0) == 0


def test_a_try_that_works_lets_everybody_in_again():
    one = opened()
    assert one.wait_s(31.0) == 0
    one.worked()
    assert not one.is_open
    assert [one.wait_s(32.0) for _ in range(3)] == [0, 0, 0]
