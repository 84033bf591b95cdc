"""Undoing a backfill takes back all that it had tagged, whatever its job file knows of it, and nothing else."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.database import Database
from ledger.tags import TagRow
from producers.backfill.question import Question
from producers.backfill.undoing import undo
from tagging.errors import JobRefused
from tests.answers import stored
from tests.ports.test_backfill_runner import LABELS, Desk, Worker
from tests.ports.test_rehearsal import Tickets


class Tagging(Worker):
    """A worker whose answers stand in the ledger."""

    def answer(self, **how: Any) -> list[str]:
        desk = self.desk
        for id_, message in self.queue:
            desk.tags.write({id_: [TagRow.of(_answer(item)) for item in message["items"]]})
        return super().answer(**how)


def _answer(item: dict[str, Any], *, fingerprint: str = "demo-1") -> Any:
    return stored(
        item["ref"], source=item["source"], task_id=item["id"], revision=item["revision"], labels=LABELS,
        fingerprint=fingerprint,
    ).answer  # fmt: skip


@pytest.fixture
def desk(sqlite_database: Database, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(sqlite_database, tmp_path, "a", "b", "c", "d", "e")
    desk.worker = Tagging(desk.intake, sqlite_database)
    desk.worker.desk = desk
    with closing(desk.job):
        yield desk


def standing(desk: Desk) -> list[str]:
    """The tasks whose answers stand."""
    return sorted(row.task_id for message in desk.messages() for item in message["items"]
                  for row in desk.tags.by_ref(item["ref"]))  # fmt: skip


def killed_before_it_was_noted(desk: Desk, monkeypatch: pytest.MonkeyPatch, **plan: Any) -> None:
    """A run is killed after it has published and before its job file says so."""

    class Killed(BaseException):
        pass

    def killed(_chunks: object) -> None:
        raise Killed

    desk.restarted(**plan)
    with monkeypatch.context() as patch:
        patch.setattr(desk.job, "sent", killed)
        with pytest.raises(Killed):
            desk.sent()


def undone(desk: Desk) -> dict[str, int]:
    return undo(desk.job, tags=desk.tags, intake=desk.intake)


def test_all_that_it_had_tagged_is_gone_and_a_second_time_finds_nothing(desk: Desk) -> None:
    assert desk.restarted().run() == "done"
    assert len(standing(desk)) == 5
    assert undone(desk) == {"removed": 5, "kept": 0}
    assert standing(desk) == []
    assert undone(desk) == {"removed": 0, "kept": 5}


def test_is_refused_while_a_message_is_on_the_queue(desk: Desk) -> None:
    desk.restarted()
    desk.sent()
    with pytest.raises(JobRefused, match="job 't' has 2 messages accepted and not finished"):
        undone(desk)


def test_is_refused_while_a_message_is_on_the_queue_of_which_the_job_file_does_not_know(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_before_it_was_noted(desk, monkeypatch)
    assert desk.job.chunks("sent") == []
    with pytest.raises(JobRefused, match="accepted and not finished"):
        undone(desk)


def test_takes_back_answers_that_came_after_the_run_was_killed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_before_it_was_noted(desk, monkeypatch)
    desk.worker.answer()
    assert len(standing(desk)) == 4
    assert undone(desk) == {"removed": 4, "kept": 0}
    assert standing(desk) == []


def test_takes_back_answers_that_came_after_it_was_cancelled(desk: Desk) -> None:
    desk.restarted()
    desk.sent()
    desk.job.state("wish", "cancel")
    assert desk.restarted().run() == "cancelled"
    desk.worker.answer()
    assert undone(desk) == {"removed": 4, "kept": 0}


def test_puts_back_what_stood_before_an_answer_of_which_the_job_file_does_not_know(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = TagRow.of(stored("T-1", task_id="before", revision=0, labels=LABELS, fingerprint="old").answer)
    desk.tags.write({"before": [before]})
    desk.source = Tickets("a", "b")
    another = Question(labels=LABELS, serves="another")
    killed_before_it_was_noted(desk, monkeypatch, into_ledger=True, question=another)
    desk.worker.answer()
    assert "before" not in standing(desk)
    assert undone(desk) == {"removed": 2, "kept": 0}
    assert standing(desk) == ["before"]


def test_leaves_what_somebody_wrote_in_its_place(desk: Desk) -> None:
    desk.restarted().run()
    [item] = [item for message in desk.messages() for item in message["items"] if item["text"] == "c"]
    later = _answer({**item, "id": "later"}, fingerprint="demo-2")
    desk.tags.write({"later": [TagRow.of(later)]})
    assert undone(desk) == {"removed": 4, "kept": 1}
    assert standing(desk) == ["later"]
