"""A worker has too many dead letters in a row when nothing was tagged between them."""

import pytest

from tagging.errors import EngineError, InvalidMessage
from workers.burying import DeadInARow
from workers.verdicts import Dead, Refused, Retry, Tagged

DEAD = Dead(cause=InvalidMessage("no label set 'sales'"))
RETRY = Retry(cause=EngineError("the device failed"))
REFUSED = Refused(cause=EngineError("erased"))
TAGGED = Tagged(result={"decision": "a"})
ALL_FAILED = Tagged(result={"done": 0, "failed": 2, "answers": []})
SOME_FAILED = Tagged(result={"done": 1, "failed": 1, "answers": []})


def test_the_last_of_them_reaches_the_limit_in_whatever_batches_they_come():
    row = DeadInARow(limit=3)
    assert [row.is_reached_by(batch) for batch in ([DEAD], [], [DEAD], [DEAD])] == [False, False, False, True]


@pytest.mark.parametrize("answer", [TAGGED, SOME_FAILED], ids=["one text", "one of many"])
def test_an_answer_begins_a_new_row(answer):
    row = DeadInARow(limit=3)
    assert not row.is_reached_by([DEAD, DEAD, answer, DEAD, DEAD])
    assert row.n == 2


@pytest.mark.parametrize("verdict", [RETRY, REFUSED], ids=["retry", "refused"])
def test_what_is_neither_counts_for_nothing(verdict):
    assert DeadInARow(limit=2).is_reached_by([DEAD, verdict, DEAD])


def test_a_message_of_which_every_item_is_dead_is_one_of_them():
    assert DeadInARow(limit=2).is_reached_by([ALL_FAILED, ALL_FAILED])


def test_0_turns_it_off():
    assert not DeadInARow(limit=0).is_reached_by([DEAD] * 1000)
