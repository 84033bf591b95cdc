"""A backfill has tags written to the tickets that its rows come from, once, and takes them off when it is undone."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.database import Database
from ledger.erasure import Eraser
from ledger.tags import TagRow
from ledger.writebacks import OwnTag
from producers.backfill.job import JobFile
from producers.backfill.question import Question
from producers.backfill.report import WrittenBack, report_of
from producers.backfill.rows import Record, Row
from producers.backfill.undoing import undo, withdraw
from tagging.documents import Document
from tagging.messages import WriteBack
from tests import writebacks
from tests.ports import test_backfill_runner
from tests.writebacks import ACCOUNT, answered
from workers.writeback.undo import undo as take_off

TAG = "billing"
"""What every answer applies; see ``answered``."""
QUESTION = Question(labels=("billing", "login"), label_set="topics", multi_label=True, serves="demo")


class Tickets:
    """Rows of two systems, of which one is an account."""

    name = "tickets"

    def __init__(self, *refs: str, source: str = ACCOUNT) -> None:
        self._rows = [
            Row(number=n, columns={}, text=f"text of {ref}", ref=ref, source=source, revision=1)
            for n, ref in enumerate(refs, start=1)
        ]

    def records(self, *, after: int = 0) -> Iterator[Record]:
        return iter(self._rows[after:])


class Tagging(test_backfill_runner.Worker):
    """A tagging worker: its answers stand, and those that want it are ordered to be written back."""

    desk: "Desk"

    def answer(self, **how: Any) -> list[str]:
        messages = list(self.queue)
        for id_, message in messages:
            rows = [
                TagRow.of(_answer(item), write_back=WriteBack(**item["write_back"]) if "write_back" in item else None)
                for item in message["items"]
            ]
            self.desk.tags.write({id_: rows})
        ids = super().answer(**how)
        for id_, message in messages:
            self.results[id_] = {"answers": [_answer(item) for item in message["items"]]}
        return ids


def _answer(item: dict[str, Any]) -> Any:
    return {**answered(item["ref"], revision=item["revision"]), "id": item["id"], "source": item["source"]}


class Desk(test_backfill_runner.Desk):
    """Jobs of an analyst whose tickets lie in a system in memory."""

    def __init__(self, database: Database, folder: Path) -> None:
        super().__init__(database, folder)
        self.worker = Tagging(self.intake, database)
        self.worker.desk = self
        self.helpdesk = writebacks.Desk(database)
        self.helpdesk.now = datetime.now(UTC) + timedelta(seconds=1)

    def begin(self, source: Tickets, *, name: str = "t", **plan: Any) -> JobFile:
        """A job whose runner is about to run."""
        self.job.close()
        self.job, self.source = JobFile.create(self.folder, name), source
        self.job.state("write_back", "yes")
        self.job.state("question", QUESTION.to_json())
        fields = {"into_ledger": True, "question": QUESTION, "accounts": frozenset({ACCOUNT}), **plan}
        self.restarted(**fields)
        return self.job

    def done(self, source: Tickets, **how: Any) -> JobFile:
        """A job that has run to its end."""
        job = self.begin(source, **how)
        assert self.runner.run() == "done"
        return job

    def tags_on(self, ref: str) -> set[str]:
        return set(self.helpdesk.system.tags_of(ref))

    def what_became(self) -> WrittenBack | None:
        return report_of(self.job, ended="done", seconds=1.0, intake=self.intake).write_back

    def undone(self) -> tuple[int, list[OwnTag]]:
        """How many orders were let go, and the tags that were taken off."""
        undo(self.job, tags=self.tags, intake=self.intake)
        ledger = self.helpdesk.ledger
        withdrawn, own = withdraw(self.job, ledger, now=self.helpdesk.now)
        connections = {ACCOUNT: self.helpdesk.connection}
        list(take_off(own, ledger=ledger, connections=connections, pause=lambda _: None))
        return withdrawn, own


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(database, tmp_path)
    yield desk
    desk.job.close()


def test_tags_reach_the_tickets_of_an_account_and_those_of_other_systems_stay_in_the_ledger(desk: Desk) -> None:
    desk.done(Tickets("T-1", "T-2"))
    desk.done(Tickets("X-1", source="mail"), name="mail")
    assert desk.helpdesk.deliver() == ["written", "written"]
    assert (desk.tags_on("T-1"), desk.tags_on("X-1")) == ({TAG}, set())
    assert desk.tags.by_ref("X-1")


def test_without_being_asked_it_writes_nothing_back(desk: Desk) -> None:
    desk.done(Tickets("T-1"), accounts=frozenset())
    assert desk.helpdesk.deliver() == []


def test_answers_that_stood_already_reach_the_tickets_too_and_only_once(desk: Desk) -> None:
    desk.done(Tickets("T-1"), name="without", accounts=frozenset())
    desk.done(Tickets("T-1"), name="with")
    desk.done(Tickets("T-1"), name="once-more")
    assert desk.job.counts().cached == 1
    assert desk.helpdesk.deliver() == ["written"]
    assert desk.tags_on("T-1") == {TAG}


def test_the_policy_is_that_of_the_label_set_that_is_asked_whatever_an_answer_was_given_under(desk: Desk) -> None:
    other = {**answered("T-1", label_set=None), "id": "before", "revision": 1}
    desk.tags.write({"before": [TagRow.of(other)]})  # type: ignore[arg-type]  # an answer with fields replaced
    desk.done(Tickets("T-1"))
    assert (desk.job.counts().cached, desk.helpdesk.deliver()) == (1, ["written"])


def test_killed_between_asking_and_keeping_the_window_it_asks_for_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(_window: object) -> None:
        raise Killed

    desk.done(Tickets("T-1"), name="without", accounts=frozenset())
    job = desk.begin(Tickets("T-1"))
    with monkeypatch.context() as patch:
        patch.setattr(job, "add", killed)
        with pytest.raises(Killed):
            desk.runner.run()
    desk.done(Tickets("T-1"))
    assert desk.helpdesk.deliver() == ["written"]
    assert desk.what_became() == written_back(ordered=1, written=1)


def test_of_an_erased_document_nothing_is_ordered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.done(Tickets("T-1"), name="without", accounts=frozenset())
    standing = desk.tags.standing([Document(ACCOUNT, "T-1", "ticket")])
    Eraser(desk.database).erase(Document(ACCOUNT, "T-1", "ticket"))
    # It was erased after the runner had looked.
    monkeypatch.setattr(desk.tags, "standing", lambda _documents: standing)
    desk.done(Tickets("T-1"))
    assert desk.helpdesk.deliver() == []


def written_back(**counts: int) -> WrittenBack:
    none = {"ordered": 0, "queued": 0, "written": 0, "superseded": 0, "dead": 0, "other": 0}
    return WrittenBack(**{**none, **counts})


def test_its_report_says_what_became_of_them(desk: Desk) -> None:
    desk.done(Tickets("T-1", "T-2", "T-3"))
    assert desk.what_became() == written_back(ordered=3, queued=3)
    desk.helpdesk.system.closed_tickets.add("T-2")
    desk.helpdesk.deliver()
    assert desk.what_became() == written_back(ordered=3, written=2, dead=1)
    report = report_of(desk.job, ended="done", seconds=1.0, intake=desk.intake)
    assert "write-back: 2 of 3 orders written, 0 queued, 1 parked, 0 not needed" in report.summary()


def test_undone_its_tags_are_off_their_tickets_and_none_is_written_afterwards(desk: Desk) -> None:
    desk.done(Tickets("T-1", "T-2"))
    first, second = desk.helpdesk.published()
    assert desk.helpdesk.writer.write(first.id, dict(first.message)) == "written"
    withdrawn, own = desk.undone()
    assert (withdrawn, [one.ticket for one in own]) == (1, [dict(first.message)["ref"]])
    assert desk.helpdesk.writer.write(second.id, dict(second.message)) == "known"
    assert (desk.tags_on("T-1"), desk.tags_on("T-2")) == (set(), set())
    assert not desk.tags.by_ref("T-1")


def test_undone_it_takes_off_what_it_had_written_of_answers_that_stood_before_and_leaves_these_in_the_ledger(
    desk: Desk,
) -> None:
    desk.done(Tickets("T-1"), name="without", accounts=frozenset())
    desk.done(Tickets("T-1"))
    desk.helpdesk.deliver()
    desk.undone()
    assert desk.tags_on("T-1") == set()
    assert desk.tags.by_ref("T-1")


def test_undone_it_leaves_what_somebody_else_had_asked_to_be_written(desk: Desk) -> None:
    desk.helpdesk.tagged({**answered("T-1"), "id": "before"})  # type: ignore[typeddict-item]
    desk.begin(Tickets("T-1")).state("begun_at", (datetime.now(UTC) + timedelta(seconds=0.1)).isoformat())
    assert desk.runner.run() == "done"
    assert desk.job.counts().cached == 1
    assert desk.undone() == (0, [])
    assert desk.helpdesk.deliver() == ["written"]
    assert desk.undone() == (0, [])
    assert desk.tags_on("T-1") == {TAG}


def test_undone_it_leaves_tags_that_others_have_set(desk: Desk) -> None:
    desk.helpdesk.system.add("T-1", [TAG])
    desk.done(Tickets("T-1"))
    desk.helpdesk.deliver()
    assert desk.undone() == (0, [])
    assert desk.tags_on("T-1") == {TAG}


def test_undone_it_takes_off_tags_of_answers_of_which_a_killed_run_never_knew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(_chunks: object) -> None:
        raise Killed

    job = desk.begin(Tickets("T-1"))
    with monkeypatch.context() as patch:
        patch.setattr(job, "sent", killed)
        with pytest.raises(Killed):
            desk.sent()
    desk.worker.answer()
    assert desk.helpdesk.deliver() == ["written"]
    desk.undone()
    assert desk.tags_on("T-1") == set()


def test_a_job_file_of_an_earlier_version_has_no_orders(tmp_path: Path) -> None:
    import sqlite3

    with closing(JobFile.create(tmp_path, "old")) as job:
        path = job.path
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE orders")
        database.execute("DELETE FROM facts WHERE name = 'begun_at'")
    with closing(JobFile.open(tmp_path, "old")) as job:
        assert list(job.orders()) == []
        assert job.begun_at <= datetime.now(UTC)
