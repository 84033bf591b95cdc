"""A message weighs the pairs that it asks about, as long as its longest one."""

import pytest

from tagging.labels import LabelBook, LabelSet
from tagging.long_text import LongText
from tagging.names import TAG_MANY, TAG_TICKET
from workers.batching import Size
from workers.weighing import weigh

LABELS = ["billing", "login"]
BOOK = LabelBook([LabelSet(name="support", labels=("a", "b", "c"), long_text=LongText("max"))])


def weight(body: object, *, task: str = TAG_TICKET) -> tuple[int, int]:
    size: Size = weigh(task, body, book=BOOK, max_length=128)
    return size.pairs, size.longest


def test_one_text_is_a_pair_for_each_label() -> None:
    assert weight({"text": "长" * 40, "labels": LABELS}) == (2, 48)


def test_a_bulk_message_weighs_all_its_items() -> None:
    body = {"labels": LABELS, "items": [{"text": "长" * 10}, {"text": "长" * 40, "labels": ["a", "b", "c"]}]}
    assert weight(body, task=TAG_MANY) == (5, 48)


def test_a_text_that_is_cut_weighs_what_fits() -> None:
    assert weight({"text": "长" * 5000, "labels": LABELS}) == (2, 128)


def test_a_text_that_is_read_in_windows_weighs_a_pair_for_each() -> None:
    # 120 tokens fit beside the label; each further window brings 120 - 20 = 100 more: 120 + 2 * 100 >= 300.
    assert weight({"text": "长" * 300, "labels": LABELS, "long_text": "max", "overlap": 20}) == (2 * 3, 128)


def test_a_label_set_may_ask_for_windows() -> None:
    # The usual overlap of 64 is bounded by half a window: 120 + 3 * 60 >= 300.
    assert weight({"text": "长" * 300, "label_set": "support"}) == (3 * 4, 128)


@pytest.mark.parametrize("body", [None, [], {}, {"text": 1}, {"labels": 3, "text": "x"}, {"items": {}}])
def test_a_wrong_message_weighs_next_to_nothing(body: object) -> None:
    pairs, longest = weight(body, task=TAG_MANY)
    assert (pairs, longest <= 9) == (1, True)
