"""A relay publishes again what is missing from a queue, not what waits in it, and gives up in the end."""

import pytest

from ledger.intake import Backlog, Due
from producers.plan import pause_s, sort_out, sweep_quotas
from tagging.names import QUEUE_BULK, QUEUE_TICKETS, TAG_TICKET


def due(id_: str, publishes: int) -> Due:
    return Due(id=id_, task=TAG_TICKET, queue=QUEUE_TICKETS, message={}, publishes=publishes)


def tickets(published: int, overdue: int) -> Backlog:
    return Backlog(queue=QUEUE_TICKETS, published=published, overdue=overdue)


def bulk(published: int, overdue: int) -> Backlog:
    return Backlog(queue=QUEUE_BULK, published=published, overdue=overdue)


def test_what_was_published_often_enough_is_given_up():
    chosen = sort_out([due("a", 0), due("b", 4), due("c", 5), due("d", 6)], max_publishes=5)
    assert [one.id for one in chosen.publish] == ["a", "b"]
    assert [one.id for one in chosen.give_up] == ["c", "d"]


def test_a_queue_that_holds_all_that_is_unfinished_has_lost_nothing_however_old_it_is():
    assert sweep_quotas([tickets(1_000_000, 1_000_000)], {QUEUE_TICKETS: 1_000_000}, most=256) == {}


def test_an_empty_queue_has_lost_all_that_is_overdue():
    assert sweep_quotas([tickets(100, 40)], {QUEUE_TICKETS: 0}, most=256) == {QUEUE_TICKETS: 40}


def test_no_more_is_published_again_than_is_missing():
    assert sweep_quotas([tickets(100, 100)], {QUEUE_TICKETS: 90}, most=256) == {QUEUE_TICKETS: 10}


def test_what_others_sent_past_the_intake_delays_a_sweep_and_never_makes_one_negative():
    assert sweep_quotas([tickets(100, 100)], {QUEUE_TICKETS: 500}, most=256) == {}


def test_one_sweep_is_bounded_over_all_queues_in_their_order():
    quotas = sweep_quotas([tickets(50, 50), bulk(900, 900)], {QUEUE_TICKETS: 0, QUEUE_BULK: 0}, most=80)
    assert quotas == {QUEUE_TICKETS: 50, QUEUE_BULK: 30}


@pytest.mark.parametrize(("failures", "full_s"), [(1, 1), (2, 2), (5, 16), (6, 30), (5_000, 30)])
def test_the_pause_doubles_up_to_a_limit(failures, full_s):
    assert pause_s(failures, first_s=1, longest_s=30, share=1.0) == full_s
    assert pause_s(failures, first_s=1, longest_s=30, share=0.0) == full_s / 2
