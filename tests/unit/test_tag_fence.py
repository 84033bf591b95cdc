"""Of two answers about one document, the fence lets one stand."""

from itertools import permutations

from ledger.tags import TagRow, standing_of, supersedes
from tests.answers import stored


def row(**changes: object) -> TagRow:
    return TagRow.of(stored(**changes).answer)  # type: ignore[arg-type]  # the test's own keywords, passed on


def test_a_newer_revision_replaces_an_older_one():
    assert supersedes(row(revision=2), row(revision=1))


def test_an_older_revision_never_replaces_a_newer_one_even_from_another_model():
    assert not supersedes(row(revision=1, fingerprint="demo-2"), row(revision=2))


def test_the_same_task_delivered_again_changes_nothing():
    assert not supersedes(row(), row())


def test_the_same_task_delivered_again_changes_nothing_after_a_model_upgrade_either():
    assert not supersedes(row(fingerprint="demo-2"), row())


def test_another_task_for_the_same_revision_and_model_changes_nothing():
    assert not supersedes(row(task_id="again"), row(task_id="first"))


def test_another_task_for_the_same_revision_replaces_what_another_model_answered():
    assert supersedes(row(task_id="again", fingerprint="demo-2"), row(task_id="first"))


def test_in_one_batch_the_newest_revision_stands_in_whatever_order_they_come():
    for order in permutations([row(revision=1), row(revision=3), row(revision=2)]):
        assert standing_of(order) == [row(revision=3)]


def test_single_and_multi_label_are_two_questions():
    assert len(standing_of([row(multi_label=False), row(multi_label=True)])) == 2


def test_rows_come_sorted_so_that_two_writers_lock_in_the_same_order():
    assert [r.ref for r in standing_of([row(ref="b"), row(ref="a"), row(ref="c")])] == ["a", "b", "c"]


def test_references_that_differ_only_in_what_no_database_takes_are_one_row():
    assert len(standing_of([row(ref="T\x00"), row(ref="T\ud800")])) == 1
