"""A runner takes a job to its end over any ledger, whatever is lost on the way."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ledger.database import Database
from ledger.intake import Intake, finish
from ledger.schema import intake as intake_table
from ledger.tags import TagLedger
from ledger.writebacks import WriteBackLedger
from producers.backfill.job import JobFile
from producers.backfill.pace import Limits
from producers.backfill.question import Question
from producers.backfill.rows import Record, Rejected, Row
from producers.backfill.runner import Plan, Runner, Sizes
from tagging.errors import BrokerUnreachable, SourceBroken, StoreUnavailable
from tagging.settings import IntakeSettings

LIMITS = Limits(in_flight=2, live_waiting_high=10, live_waiting_low=1, live_age_s=60.0)
LABELS = ("billing", "login")


class Rows:
    """A source in memory."""

    name = "rows"

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    def records(self, *, after: int = 0) -> Iterator[Record]:
        for number, text in enumerate(self._texts, start=1):
            if number > after:
                yield Row(number=number, columns={"n": number}, text=text)


class Worker:
    """A broker whose worker answers when it is told to; what it is asked about text ``bad`` fails."""

    def __init__(self, intake: Intake, database: Database) -> None:
        self._intake = intake
        self._database = database
        self.queue: list[tuple[str, dict[str, Any]]] = []
        self.published: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.live = 0
        self.is_away = False

    def publishing(self, messages: Any) -> Iterator[str]:
        for _, message, id_ in messages:
            if self.is_away:
                raise BrokerUnreachable("away")
            self.published.append(id_)
            self.sent.append(message)
            self.queue.append((id_, message))
            yield id_

    def waiting(self, queue: str) -> int:
        return self.live

    def settled(self, task_ids: Any) -> dict[str, dict[str, Any]]:
        return {id_: self.results[id_] for id_ in task_ids if id_ in self.results}

    def discard(self, task_ids: Any) -> None:
        for id_ in task_ids:
            del self.results[id_]

    def answer(self, *, state: str = "done", finished_s_ago: float = 0.0) -> list[str]:
        """Answer all that is on the queue, and finish it; the ids."""
        messages, self.queue = self.queue, []
        at = datetime.now(UTC) - timedelta(seconds=finished_s_ago)
        for id_, message in messages:
            self.results[id_] = {"answers": [_answer(item) for item in message["items"]]}
            with self._database.writing() as connection:
                finish(connection, {id_: "the reason" if state == "dead" else None}, state, at)
        return [id_ for id_, _ in messages]


def _answer(item: dict[str, Any]) -> dict[str, Any]:
    if item["text"] == "bad":
        return {"error": "no answer to this text"}
    return {
        "decision": "abstain", "tags": [], "labels": list(LABELS), "scores": [0.5, 0.5], "model": {"name": "demo"},
        "label_set_digest": "d", "cache": "none", "tokens": 7, "computed": 2,
    }  # fmt: skip


class Desk:
    """A job with its runner, a step at a time."""

    def __init__(self, database: Database, folder: Path, *texts: str) -> None:
        self.intake = Intake(database)
        self.tags = TagLedger(database)
        self.worker = Worker(self.intake, database)
        self.database = database
        self.folder = folder
        self.job = JobFile.create(folder, "t")
        self.source = Rows(*texts)
        self.runner = self.restarted()

    def restarted(self, **plan: Any) -> Runner:
        values = {
            "question": Question(labels=LABELS, serves="demo"),
            "into_ledger": False,
            "source": None,
            "sizes": Sizes(window=4, items=2, chars=1000, text_chars=50),
            "limits": LIMITS,
            "patience_s": 0.0,
        }
        self.runner = Runner(
            job=self.job,
            source=self.source,
            plan=Plan(**{**values, **plan}),
            intake=self.intake,
            tags=self.tags,
            broker=self.worker,
            settings=IntakeSettings(),
            write_backs=WriteBackLedger(self.database),
            pause=lambda _: self.worker.answer(),
        )
        return self.runner

    def messages(self) -> list[dict[str, Any]]:
        """All that was published."""
        return self.worker.sent

    def sent(self) -> None:
        """Read a window and send what fits."""
        self.runner.step()
        self.runner.step()


@pytest.fixture
def desk(sqlite_database: Database, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(sqlite_database, tmp_path, "a", "bad", "", "a", "b", "c" * 51, "d")
    with closing(desk.job):
        yield desk


def test_every_row_ends_in_one_of_four_ways(desk: Desk) -> None:
    assert desk.runner.run() == "done"
    counts = desk.job.counts()
    assert (counts.read, counts.tagged, counts.failed, counts.rejected, counts.open) == (7, 4, 1, 2, 0)
    assert [(one.number, one.reason) for one in desk.job.refused()] == [
        (2, "no answer to this text"),
        (3, "text: empty after cleaning"),
        (6, "text: 51 characters, limit is 50"),
    ]


@pytest.mark.parametrize("relabel", [False, True])
def test_workers_are_told_to_look_into_the_ledger_where_labels_have_changed(desk: Desk, relabel: bool) -> None:
    desk.restarted(relabel=relabel).run()
    assert {message.get("relabel", False) for message in desk.messages()} == {relabel}


def test_says_what_the_answers_cost(desk: Desk) -> None:
    desk.runner.run()
    # a, b and d; the second a is not asked, and nothing is known of what a failed text cost.
    assert (desk.job.caches(), desk.job.tokens(), desk.job.computed()) == ({"none": 3}, 21, 6)


def test_no_more_is_in_flight_than_its_window(sqlite_database: Database, tmp_path: Path) -> None:
    desk = Desk(sqlite_database, tmp_path, *"abcdefgh")
    with closing(desk.job):
        for _ in range(10):
            desk.runner.step()
        assert len(desk.worker.queue) == LIMITS.in_flight


def test_results_are_removed_once_they_are_kept(desk: Desk) -> None:
    desk.runner.run()
    assert desk.worker.results == {}


def test_what_was_accepted_and_not_published_before_a_kill_is_published_by_the_next_run(desk: Desk) -> None:
    desk.worker.is_away = True
    with pytest.raises(BrokerUnreachable):
        desk.sent()
    desk.worker.is_away = False
    assert desk.restarted().run() == "done"
    assert len(set(desk.worker.published)) == len(desk.worker.published)


def test_what_was_published_before_a_kill_is_not_published_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(_chunks: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(desk.job, "sent", killed)
        with pytest.raises(Killed):
            desk.sent()
    before = list(desk.worker.published)
    assert before
    desk.restarted().run()
    assert len(set(desk.worker.published)) == len(desk.worker.published)
    assert set(before) < set(desk.worker.published)


def test_a_result_that_was_evicted_is_asked_for_again(desk: Desk) -> None:
    desk.sent()
    lost = desk.worker.answer(finished_s_ago=60)
    desk.worker.results.clear()
    assert desk.restarted().run() == "done"
    assert desk.job.counts().tagged == 4
    assert len(desk.worker.published) > len(set(lost))


def test_a_result_that_may_still_come_is_waited_for(desk: Desk) -> None:
    desk.sent()
    desk.worker.answer(finished_s_ago=1)
    desk.worker.results.clear()
    before = len(desk.worker.published)
    desk.restarted().step()
    assert len(desk.worker.published) == before


def test_a_message_that_was_parked_fails_its_rows_with_the_reason(desk: Desk) -> None:
    desk.sent()
    desk.worker.answer(state="dead", finished_s_ago=60)
    desk.worker.results.clear()
    desk.restarted().run()
    assert "the reason" in {one.reason for one in desk.job.refused()}


def test_a_message_whose_row_the_intake_no_longer_has_is_asked_again(desk: Desk) -> None:
    desk.sent()
    desk.worker.queue.clear()
    with desk.database.writing() as connection:
        connection.execute(sa.delete(intake_table))
    assert desk.restarted().run() == "done"


def test_gives_way_while_live_messages_wait(desk: Desk) -> None:
    desk.worker.live = LIMITS.live_waiting_high + 1
    for _ in range(5):
        desk.runner.step()
    assert desk.worker.published == []


@pytest.mark.parametrize(("wish", "ended"), [("pause", "paused"), ("cancel", "cancelled")])
def test_ends_when_somebody_wishes_so_and_loses_nothing(desk: Desk, wish: str, ended: str) -> None:
    desk.sent()
    desk.job.state("wish", wish)
    assert desk.runner.run() == ended
    desk.job.state("wish", "run")
    assert desk.restarted().run() == "done"
    assert desk.job.counts().tagged == 4


def test_a_source_is_read_on_from_where_it_was_left(desk: Desk) -> None:
    desk.sent()
    assert desk.job.cursor == 4
    desk.restarted().run()
    assert desk.job.counts().read == 7


def test_a_ledger_that_is_away_for_a_moment_costs_no_row(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    standing, failures = desk.tags.standing, [StoreUnavailable("away")] * 2

    def flickering(documents: Any) -> Any:
        if failures:
            raise failures.pop()
        return standing(documents)

    monkeypatch.setattr(desk.tags, "standing", flickering)
    runner = desk.restarted(patience_s=1000.0)
    assert runner.run() == "done"
    assert (desk.job.counts().read, desk.job.counts().tagged) == (7, 4)
    assert runner.progress.waits_for != "the ledger is away"


def test_a_source_that_breaks_ends_the_run_after_the_rows_before_it_and_goes_on_once_it_is_mended(desk: Desk) -> None:
    whole = Rows("a", "b", "c", "d", "e", "f")

    class CutOff(Rows):
        def records(self, *, after: int = 0) -> Iterator[Record]:
            for record in whole.records(after=after):
                if record.number > 5:
                    raise SourceBroken("cut off")
                yield record

    desk.source = CutOff()
    with pytest.raises(SourceBroken, match="cut off"):
        desk.restarted().run()
    assert (desk.job.counts().read, desk.job.is_read) == (5, False)
    with pytest.raises(SourceBroken, match="cut off"):
        desk.restarted().run()
    desk.source = whole
    assert desk.restarted().run() == "done"
    assert (desk.job.counts().read, desk.job.counts().tagged) == (6, 6)


def test_a_broker_that_is_not_there_at_first_ends_the_run(desk: Desk) -> None:
    class Away(Worker):
        def waiting(self, queue: str) -> int:
            raise BrokerUnreachable("away")

    desk.worker = Away(desk.intake, desk.database)
    with pytest.raises(BrokerUnreachable):
        desk.restarted(patience_s=1000.0).run()


def test_records_that_the_source_rejects_are_counted(sqlite_database: Database, tmp_path: Path) -> None:
    class Broken(Rows):
        def records(self, *, after: int = 0) -> Iterator[Record]:
            yield from [Rejected(number=1, reason="no JSON", raw="{")] if after < 1 else []

    desk = Desk(sqlite_database, tmp_path)
    desk.source = Broken()
    with closing(desk.job):
        assert desk.restarted().run() == "done"
        assert (desk.job.counts().read, desk.job.counts().rejected) == (1, 1)
