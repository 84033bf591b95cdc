"""Tags that somebody takes back are gone where they still stand, and what stood before them is back."""

from collections.abc import Sequence

import pytest

from ledger.database import Database
from ledger.erasure import Eraser
from ledger.tags import StandingTags, TagKey, TagLedger, TagRow
from producers.backfill.runner import kept, restored
from tagging.documents import Document
from tests.answers import stored


@pytest.fixture
def tags(database: Database) -> TagLedger:
    return TagLedger(database)


def write(tags: TagLedger, *, task_id: str, ref: str = "T-1", logits: bytes | None = None, **fields) -> TagKey:
    one = TagRow.of(stored(ref, task_id=task_id, **fields).answer, logits=logits)
    tags.write({task_id: [one]})
    return one.key


def standing(tags: TagLedger, *refs: str) -> Sequence[StandingTags]:
    return tags.standing([Document("zendesk", ref, "ticket") for ref in refs])


def ids(tags: TagLedger, ref: str = "T-1") -> list[str]:
    return [row.task_id for row in tags.by_ref(ref)]


def test_says_what_stands_for_many_documents_whatever_was_asked(tags):
    write(tags, task_id="a")
    write(tags, task_id="b", labels=("other", "labels"))
    write(tags, task_id="c", ref="T-2")
    write(tags, task_id="d", ref="T-3")
    write(tags, task_id="e", ref="T-1", source="jira")
    assert {row.task_id for row in standing(tags, "T-1", "T-2", "T-9")} == {"a", "b", "c"}
    assert standing(tags) == []


def test_says_so_for_more_documents_than_fit_into_one_statement(tags):
    tags.write({f"t{i}": [TagRow.of(stored(f"R-{i}", task_id=f"t{i}").answer)] for i in range(1100)})
    assert len(standing(tags, *(f"R-{i}" for i in range(1100)))) == 1100


def test_a_first_answer_leaves_nothing(tags):
    key = write(tags, task_id="job")
    assert tags.take_back({key: "job"}, []) == 1
    assert ids(tags) == []


def test_what_was_replaced_is_as_it_was_even_after_it_lay_in_a_job_file(tags):
    write(tags, task_id="before", revision=1, score=0.7, logits=bytes(range(32)))
    [before] = standing(tags, "T-1")
    key = write(tags, task_id="job", revision=2, score=0.9)
    assert tags.take_back({key: "job"}, [restored(kept(before))]) == 1
    assert tags.by_ref("T-1") == [before]


def test_what_came_later_stays(tags):
    write(tags, task_id="before", revision=1)
    [before] = standing(tags, "T-1")
    key = write(tags, task_id="job", revision=2)
    write(tags, task_id="later", revision=3)
    assert tags.take_back({key: "job"}, [before]) == 0
    assert ids(tags) == ["later"]


def test_a_second_time_changes_nothing(tags):
    write(tags, task_id="before", revision=1)
    before = standing(tags, "T-1")
    key = write(tags, task_id="job", revision=2)
    assert [tags.take_back({key: "job"}, before) for _ in range(2)] == [1, 0]
    assert ids(tags) == ["before"]


def test_what_was_erased_meanwhile_does_not_come_back(tags, database):
    write(tags, task_id="before", revision=1)
    before = standing(tags, "T-1")
    key = write(tags, task_id="job", revision=2)
    Eraser(database).erase(Document("zendesk", "T-1", "ticket"))
    assert tags.take_back({key: "job"}, before) == 0
    assert ids(tags) == []
