"""Every TagStore holds one answer for each document and question, and never goes back to an older revision."""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ledger.tags import TagLedger, TagRow
from tagging.documents import Document
from tests.answers import stored
from tests.ports.tag_stores import OpenStore, in_database, in_memory, messages
from workers.ports import Logit, Sought, Stored


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opened(request: pytest.FixtureRequest) -> OpenStore:
    if request.param == "memory":
        return in_memory()
    return in_database(request.getfixturevalue(f"{request.param}_database"))


def revisions(opened: OpenStore, ref: str = "T-1") -> list[int]:
    return [row.revision for row in opened.by_ref(ref)]


def test_stores_what_was_answered(opened):
    one = stored()
    opened.store.write([one])
    [row] = opened.by_ref("T-1")
    assert row.answer == one.answer
    assert (row.task_id, row.source, row.kind, row.decision, row.model) == (
        one.task.id, "zendesk", "ticket", "apply", "demo",
    )  # fmt: skip


def test_is_found_by_the_id_asked_for(opened):
    opened.store.write([stored("T-1", task_id="mine"), stored("T-2", task_id="other")])
    assert [row.ref for row in opened.by_id("mine")] == ["T-1"]
    assert list(opened.by_id("nobody's")) == []


def test_is_found_by_reference_in_one_source_or_in_any(opened):
    opened.store.write([stored("T-1", source="zendesk"), stored("T-1", source="github")])
    assert {row.source for row in opened.by_ref("T-1")} == {"zendesk", "github"}
    assert {row.source for row in opened.by_ref("T-1", "github")} == {"github"}
    assert list(opened.by_ref("T-1", "jira")) == []


def test_a_newer_revision_replaces_an_older_one(opened):
    opened.store.write([stored(revision=1, score=0.9)])
    opened.store.write([stored(revision=2, score=0.6)])
    [row] = opened.by_ref("T-1")
    assert (row.revision, row.answer["scores"][0]) == (2, 0.6)


def test_an_older_revision_that_comes_late_changes_nothing(opened):
    opened.store.write([stored(revision=2)])
    opened.store.write([stored(revision=1)])
    assert revisions(opened) == [2]


def test_several_revisions_of_a_document_in_one_batch_leave_the_newest(opened):
    opened.store.write([stored(revision=1), stored(revision=3), stored(revision=2), stored("T-2", revision=1)])
    assert (revisions(opened), revisions(opened, "T-2")) == ([3], [1])


def test_the_same_task_twice_leaves_the_first_answer(opened):
    opened.store.write([stored(score=0.9)])
    opened.store.write([stored(score=0.8), stored(score=0.7)])
    [row] = opened.by_ref("T-1")
    assert row.answer["scores"][0] == 0.9


def test_the_same_revision_asked_of_another_model_replaces_the_answer(opened):
    opened.store.write([stored(task_id="first", fingerprint="demo-1")])
    opened.store.write([stored(task_id="backfill", fingerprint="demo-2")])
    [row] = opened.by_ref("T-1")
    assert (row.fingerprint, row.task_id) == ("demo-2", "backfill")


def test_other_labels_another_kind_or_multi_label_are_answers_of_their_own(opened):
    opened.store.write(
        [stored(), stored(labels=("a", "b")), stored(labels=("a", "b"), multi_label=True), stored(kind="comment")]
    )
    assert len(opened.by_ref("T-1")) == 4


def test_the_order_of_the_labels_is_no_other_question(opened):
    opened.store.write([stored(labels=("a", "b"), revision=1), stored(labels=("b", "a"), revision=2)])
    assert revisions(opened) == [2]


def test_revisions_reach_to_63_bits(opened):
    opened.store.write([stored(revision=2**63 - 1)])
    opened.store.write([stored(revision=2**63 - 2)])
    assert revisions(opened) == [2**63 - 1]


A, B, C = (bytes([n]) * 8 for n in b"abc")
FOR_A, FOR_B = Logit(1.5, -0.25), Logit(-3.0, 2.0)


def sought(one: Stored, *hypotheses: bytes) -> Sought:
    """The same text of the same document."""
    return Sought(Document(one.task.source, one.task.ref, one.task.kind), one.key, hypotheses)


def test_knows_the_logits_of_the_answers_that_stand(opened):
    one = stored(logits={A: FOR_A, B: FOR_B})
    opened.store.write([one, stored("T-2", labels=("x",), logits={C: FOR_A})])
    assert opened.store.known([sought(one, A, C)]) == {one.key: {A: FOR_A}}
    assert opened.store.known([]) == {}


def test_knows_those_of_every_question_that_was_asked_about_the_document(opened):
    first, second = stored(logits={A: FOR_A}), stored(labels=("x",), task_id="2", logits={B: FOR_B})
    opened.store.write([first, second])
    assert opened.store.known([sought(first, A, B, C)]) == {first.key: {A: FOR_A, B: FOR_B}}


@pytest.mark.parametrize("other", [{"text": "edited"}, {"fingerprint": "demo-2"}, {"ref": "T-2"}, {"source": "jira"}])
def test_knows_nothing_of_another_text_model_or_document(opened, other):
    opened.store.write([stored(**{"ref": "T-1", **other}, logits={A: FOR_A})])
    assert opened.store.known([sought(stored(), A)]) == {}


def test_knows_nothing_of_a_text_that_an_edit_replaced(opened):
    before, after = stored(revision=1, logits={A: FOR_A}), stored(revision=2, text="edited", logits={A: FOR_B})
    opened.store.write([before])
    opened.store.write([after])
    assert opened.store.known([sought(before, A), sought(after, A)]) == {after.key: {A: FOR_B}}


def test_knows_nothing_of_a_document_that_was_erased(opened):
    one = stored(logits={A: FOR_A})
    opened.store.write([one])
    opened.erase(Document("zendesk", "T-1", "ticket"))
    assert opened.store.known([sought(one, A)]) == {}


def test_knows_no_logits_that_are_not_finite(opened):
    one = stored(logits={A: Logit(math.nan, 0.0), B: FOR_B})
    opened.store.write([one])
    assert opened.store.known([sought(one, A, B)]) == {one.key: {B: FOR_B}}


def test_an_empty_batch_is_fine(opened):
    opened.store.write([])


@pytest.mark.parametrize("ref", ["it's", 'a"b', "%_\\", "退款-🐕", "x" * 256, "'; DROP TABLE tags; --", "a\nb"])
def test_references_are_kept_to_the_letter(opened, ref):
    opened.store.write([stored(ref)])
    assert [row.ref for row in opened.by_ref(ref)] == [ref]


def test_what_no_database_takes_harms_no_other_row_and_is_still_found(opened):
    opened.store.write([stored("NUL\x00", labels=("a\x00", "b\ud800")), stored("T-2")])
    assert len(opened.by_ref("NUL\x00")) == 1
    assert len(opened.by_ref("T-2")) == 1


def test_an_id_of_any_length_harms_no_other_row_and_is_still_found(opened):
    endless = "".join(chr(0x4E00 + i) for i in range(10_000))
    opened.store.write([stored(endless, task_id=endless), stored(endless + "x"), stored("T-2")])
    assert [len(opened.by_ref(ref)) for ref in (endless, endless + "x", "T-2")] == [1, 1, 1]
    assert len(opened.by_id(endless)) == 1


def test_a_backslash_before_u0000_is_no_nul(opened):
    opened.store.write([stored(labels=("a\\u0000", "b"))])
    [row] = opened.by_ref("T-1")
    assert row.answer["labels"] == ["a\\u0000", "b"]


def test_more_rows_than_a_statement_may_have_variables_are_one_batch(opened):
    opened.store.write([stored(f"T-{i}") for i in range(2_500)])
    assert len(opened.by_ref("T-0")) == len(opened.by_ref("T-2499")) == 1


def rows(*changes: dict[str, object]) -> list[TagRow]:
    return [TagRow.of(stored(**change).answer) for change in changes]  # type: ignore[arg-type]  # the test's keywords


def test_the_ledger_says_how_many_rows_a_batch_changed(database):
    ledger = TagLedger(database)
    assert ledger.write(messages(rows({"ref": "a"}, {"ref": "b"}, {"ref": "b", "revision": 2}))).changed == 2
    assert ledger.write(messages(rows({"ref": "a"}, {"ref": "b", "revision": 3}, {"ref": "c"}))).changed == 2
    assert ledger.write(messages(rows({"ref": "a"}))).changed == 0


def test_the_ledger_knows_since_when_an_answer_stands(database):
    ledger = TagLedger(database)
    ledger.write(messages(rows({"revision": 1})))
    [first] = ledger.by_ref("T-1")
    assert first.created_at == first.updated_at
    assert first.created_at.utcoffset().total_seconds() == 0
    ledger.write(messages(rows({"revision": 1})))
    assert ledger.by_ref("T-1") == [first]
    ledger.write(messages(rows({"revision": 2})))
    [second] = ledger.by_ref("T-1")
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at


def test_the_ledger_refuses_what_is_not_json_rather_than_wait(database):
    [row] = rows({})
    with pytest.raises(ValueError, match="NaN or Inf"):
        TagLedger(database).write({"a": [replace(row, answer={**row.answer, "scores": [float("nan")]})]})


def test_writers_at_once_leave_the_newest_revision_of_each_document(database):
    ledger = TagLedger(database)
    deliveries = [{"ref": f"T-{i % 20}", "revision": i // 20} for i in range(400)] * 2
    random.Random(7).shuffle(deliveries)
    batches = [rows(*deliveries[start : start + 20]) for start in range(0, len(deliveries), 20)]
    with ThreadPoolExecutor(4) as writers:
        changed = sum(written.changed for written in writers.map(ledger.write, map(messages, batches)))
    assert {row.revision for i in range(20) for row in ledger.by_ref(f"T-{i}")} == {19}
    assert changed < 400
