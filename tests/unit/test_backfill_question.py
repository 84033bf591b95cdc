"""The question of a job says which texts are the same, which answers count, and how texts are put into messages."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.backfill.question import Item, Question, cut, item_of_document, item_of_text
from producers.backfill.rows import Row
from tagging.messages import Decoder
from tests.answers import stored

QUESTION = Question(labels=("billing", "login"), serves="demo")
ROW = Row(number=1, columns={}, text="hello", ref="T-1", source="zendesk")


def document(row: Row = ROW, question: Question = QUESTION, pepper: str = "") -> Item:
    return item_of_document(row, question, source=None, pepper=pepper)


def of_text(row: Row = ROW, question: Question = QUESTION) -> Item:
    return item_of_text(row, question, pepper="")


def test_into_a_file_the_same_text_is_one_item_whatever_its_row():
    assert of_text() == of_text(replace(ROW, number=2, ref="T-2", revision=4, kind="comment"))
    assert of_text() != of_text(replace(ROW, text="hello!"))


@pytest.mark.parametrize(
    "other", [{"ref": "T-2"}, {"source": "jira"}, {"kind": "comment"}, {"revision": 1}, {"text": "x"}]
)
def test_into_the_ledger_each_revision_of_each_document_is_an_item(other):
    assert document().id != document(replace(ROW, **other)).id


def test_a_row_without_a_reference_stands_in_the_ledger_under_its_text():
    nameless = replace(ROW, ref=None)
    assert document(nameless).ref == document(replace(nameless, number=2, revision=1)).ref
    assert document(nameless).ref != document(replace(nameless, text="hello!")).ref


def test_whatever_is_asked_of_a_text_stands_under_one_reference():
    asked = replace(QUESTION, labels=("billing", "login", "refund"))
    assert of_text().ref == of_text(question=asked).ref
    assert of_text().id != of_text(question=asked).id


@pytest.mark.parametrize(
    "other",
    [{"labels": ("billing",)}, {"multi_label": True}, {"template": "a {}"}, {"serves": "large"}, {"round": "again"}],
)
def test_another_question_makes_another_item(other):
    assert of_text().id != of_text(question=replace(QUESTION, **other)).id


def test_an_id_cannot_be_guessed_without_the_pepper():
    assert document(pepper="").id != document(pepper="secret").id


def test_survives_the_job_file():
    asked = replace(QUESTION, label_set="support", template="a {}", model="demo", round="r")
    assert Question.from_json(asked.to_json()) == asked


def test_its_message_is_one_that_workers_take():
    body = QUESTION.message([document(), of_text()])
    decoder = Decoder(book=None, model="demo", default_template="{}")
    tasks = decoder.many(body, task_id="m")
    assert [(task.id, task.ref, task.source, task.labels) for task in tasks] == [
        (document().id, "T-1", "zendesk", QUESTION.labels),
        (of_text().id, of_text().ref, "backfill", QUESTION.labels),
    ]


def standing(**other):
    return {**stored().answer, "labels": ["login", "billing"], "multi_label": False, "revision": 0, **other}


def test_an_answer_that_stands_counts_whatever_the_order_of_its_labels():
    assert QUESTION.is_answered_by(standing(), document())


@pytest.mark.parametrize(
    ("answered", "question", "revision"),
    [
        ({"labels": ["login"]}, QUESTION, 0),
        ({"multi_label": True}, QUESTION, 0),
        ({}, replace(QUESTION, serves="large"), 0),
        ({}, replace(QUESTION, template="a {}"), 0),
        ({}, replace(QUESTION, round="again"), 0),
        ({}, QUESTION, 1),
    ],
    ids=["other labels", "other scoring", "other model", "other template", "asked anew", "older revision"],
)  # fmt: skip
def test_an_answer_to_something_else_does_not(answered, question, revision):
    assert not question.is_answered_by(standing(**answered), replace(document(), revision=revision))


def items(*lengths: int) -> list[Item]:
    return [replace(document(), id=f"{i}", text="x" * length) for i, length in enumerate(lengths)]


def sizes(chunks: list[list[Item]]) -> list[list[int]]:
    return [[len(item.text) for item in chunk] for chunk in chunks]


def test_texts_of_a_length_travel_together():
    # 2 x 90 = 180 characters, padded; a third text would make 3 x 90 = 270.
    assert sizes(cut(items(10, 90, 12, 80, 11), most=10, max_chars=200)) == [[90, 80], [12, 11, 10]]


def test_a_message_holds_no_more_items_than_allowed():
    assert sizes(cut(items(5, 5, 5), most=2, max_chars=1000)) == [[5, 5], [5]]


def test_a_text_that_is_too_long_for_a_message_travels_alone():
    assert sizes(cut(items(500, 3, 2), most=10, max_chars=100)) == [[500], [3, 2]]


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 8), st.integers(1, 200))
def test_every_item_is_in_one_chunk_and_the_order_it_came_in_makes_no_difference(lengths, most, max_chars):
    given_items = items(*lengths)
    chunks = cut(given_items, most=most, max_chars=max_chars)
    assert sorted(item.id for chunk in chunks for item in chunk) == sorted(item.id for item in given_items)
    assert chunks == cut(given_items[::-1], most=most, max_chars=max_chars)
