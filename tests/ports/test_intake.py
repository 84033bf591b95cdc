"""What the intake has accepted is committed, is claimed by one publisher at a time, and ends in exactly one state."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from ledger.database import open_database
from ledger.dead import DeadLedger, DeadRow
from ledger.intake import Due, Intake, State, Submission
from ledger.tags import TagLedger, TagRow
from tagging.names import QUEUE_TICKETS, TAG_COMMENT, TAG_MANY, TAG_TICKET
from tests.answers import LABELS, TEXT, stored

NOW = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=36_500)  # later than whatever a test accepts
LATER = NOW + timedelta(minutes=1)


def ticket(id_: str = "a", *, ref: str = "T-1", key: str | None = None, revision: int = 1) -> Submission:
    message = {"text": TEXT, "labels": list(LABELS), "source": "zendesk", "ref": ref, "revision": revision}
    return Submission(id=id_, task=TAG_TICKET, message=message, idempotency_key=key)


def bulk(id_: str = "bulk", *, refs: tuple[str, ...] = ("T-1", "T-2")) -> Submission:
    message = {"items": [{"text": TEXT, "ref": ref} for ref in refs], "labels": list(LABELS), "source": "zendesk"}
    return Submission(id=id_, task=TAG_MANY, message=message)


def letter(id_: str, *, reason: str = "NotFinite: the model answered NaN") -> DeadRow:
    return DeadRow(id=id_, task=TAG_TICKET, queue=QUEUE_TICKETS, reason=reason, attempts=3, payload='{"text": "…"}')


def answered(ref: str = "T-1", revision: int = 1) -> list[TagRow]:
    return [TagRow.of(stored(ref, revision=revision).answer)]


@pytest.fixture
def intake(database) -> Intake:
    return Intake(database)


@pytest.fixture
def state(intake) -> Callable[[str], State | None]:
    def look_up(id_: str) -> State | None:
        row = intake.get(id_)
        return row and row.state

    return look_up


def claimed(intake: Intake, limit: int = 100) -> list[Due]:
    return intake.claim(now=NOW, until=LATER, limit=limit)


def test_what_is_accepted_is_there_for_another_process(intake, database_url):
    assert [r.outcome for r in intake.accept([ticket("a"), bulk("b")])] == ["accepted", "accepted"]
    with closing(open_database(database_url)) as elsewhere:
        other = Intake(elsewhere)
        row = other.get("a")
        assert (row.state, row.source, row.ref, row.revision, row.publishes) == ("accepted", "zendesk", "T-1", 1, 0)
        assert other.counts() == {"accepted": 2}


def test_the_same_id_again_is_known_and_the_first_message_counts(intake):
    intake.accept([ticket("a", ref="T-1")])
    assert [r.outcome for r in intake.accept([ticket("a", ref="T-2"), ticket("b")])] == ["known", "accepted"]
    assert [due.message["ref"] for due in claimed(intake)] == ["T-1", "T-1"]


def test_an_idempotency_key_of_a_source_names_its_first_message(intake):
    intake.accept([ticket("a", key="delivery-1")])
    [again] = intake.accept([ticket("b", key="delivery-1")])
    assert (again.id, again.outcome) == ("a", "known")
    other = Submission(id="c", task=TAG_COMMENT, message={"source": "github"}, idempotency_key="delivery-1")
    assert intake.accept([other])[0].outcome == "accepted"


def test_a_message_is_kept_to_the_last_character(intake):
    message = {"text": "\x00 \ud800 退款 🐕", "labels": ["a", "b"]}
    intake.accept([Submission(id="a", task=TAG_TICKET, message=message)])
    assert claimed(intake)[0].message == message


def test_hundreds_at_a_time_are_accepted_in_their_order(intake):
    receipts = intake.accept([ticket(f"{i:04}", ref=f"T-{i}") for i in range(1_200)])
    assert [r.id for r in receipts] == [f"{i:04}" for i in range(1_200)]
    assert intake.counts() == {"accepted": 1_200}


def test_live_queues_are_claimed_before_bulk_and_each_in_the_order_of_arrival(intake):
    intake.accept([bulk("bulk")])
    intake.accept([ticket("first")])
    intake.accept([ticket("second")])
    assert [due.id for due in claimed(intake, 2)] == ["first", "second"]
    assert [due.id for due in claimed(intake)] == ["bulk"]


def test_what_is_claimed_is_due_for_nobody_until_the_claim_runs_out(intake):
    intake.accept([ticket()])
    assert intake.has_due(NOW)
    assert len(claimed(intake)) == 1
    assert not intake.has_due(NOW)
    assert claimed(intake) == []
    assert [due.id for due in intake.claim(now=LATER, until=LATER, limit=1)] == ["a"]


def test_what_is_accepted_with_a_claim_is_due_after_it(intake):
    intake.accept([ticket()], claimed_until=LATER)
    assert not intake.has_due(NOW)
    assert intake.has_due(LATER)


def test_a_claim_that_is_given_up_is_due_at_once(intake):
    intake.accept([ticket()])
    claimed(intake)
    intake.release(["a"], now=NOW)
    assert len(claimed(intake)) == 1


def test_several_relays_claim_each_message_once(intake):
    intake.accept([ticket(f"{i}", ref=f"T-{i}") for i in range(200)])
    with ThreadPoolExecutor(4) as relays:
        rounds = relays.map(lambda _: [due.id for due in claimed(intake, 25)], range(12))
    ids = [id_ for round_ in rounds for id_ in round_]
    assert sorted(ids) == sorted(map(str, range(200)))


def test_what_was_published_is_not_due_and_overdue_after_its_time(intake, state):
    intake.accept([ticket()])
    claimed(intake)
    intake.published(["a"], now=NOW, again_at=LATER)
    assert state("a") == "published"
    assert not intake.has_due(LATER)
    [before], [after] = intake.backlogs(NOW), intake.backlogs(LATER)
    assert (before.published, before.overdue, after.overdue) == (1, 0, 1)
    assert intake.claim_overdue({QUEUE_TICKETS: 5}, now=NOW, until=LATER) == []
    [due] = intake.claim_overdue({QUEUE_TICKETS: 5}, now=LATER, until=LATER + timedelta(seconds=1))
    assert (due.id, due.publishes) == ("a", 1)


def test_a_quota_bounds_what_is_claimed_again(intake):
    intake.accept([ticket(f"{i}") for i in range(10)])
    intake.published([due.id for due in claimed(intake)], now=NOW, again_at=NOW)
    assert len(intake.claim_overdue({QUEUE_TICKETS: 3}, now=NOW, until=LATER)) == 3


def test_a_worker_finishes_it_with_its_tags(intake, database, state):
    intake.accept([ticket(), bulk()])
    TagLedger(database).write({"a": answered(), "bulk": answered("T-2"), "foreign": answered("T-3")})
    assert (state("a"), state("bulk"), state("foreign")) == ("done", "done", None)
    assert claimed(intake) == []


def test_a_message_of_which_nothing_is_stored_is_finished_too(intake, database, state):
    intake.accept([bulk()])
    TagLedger(database).write({"bulk": []})
    assert state("bulk") == "done"


def test_publishing_that_is_noted_after_a_worker_was_done_only_counts(intake, database):
    intake.accept([ticket()])
    claimed(intake)
    TagLedger(database).write({"a": answered()})
    intake.published(["a"], now=NOW, again_at=LATER)
    row = intake.get("a")
    assert (row.state, row.publishes, row.published_at) == ("done", 1, NOW)
    assert intake.backlogs(LATER) == []


def test_an_older_revision_is_superseded_whether_it_comes_later_or_in_the_same_batch(intake, database, state):
    intake.accept([ticket("old", revision=1), ticket("new", revision=3), ticket("late", revision=2)])
    tags = TagLedger(database)
    tags.write({"old": answered(revision=1), "new": answered(revision=3)})
    tags.write({"late": answered(revision=2)})
    assert (state("old"), state("new"), state("late")) == ("superseded", "done", "superseded")


def test_the_same_delivery_twice_is_done_once(intake, database, state):
    intake.accept([ticket()])
    for _ in range(2):
        TagLedger(database).write({"a": answered()})
    assert state("a") == "done"


def test_parking_ends_it_with_the_reason(intake, database, state):
    intake.accept([ticket()])
    DeadLedger(database).park([letter("a"), letter("foreign")])
    row = intake.get("a")
    assert (row.state, row.reason) == ("dead", "NotFinite: the model answered NaN")
    assert claimed(intake) == []


def test_parking_what_is_done_leaves_it_done(intake, database, state):
    intake.accept([ticket()])
    TagLedger(database).write({"a": answered()})
    DeadLedger(database).park([letter("a")])
    assert state("a") == "done"


def test_a_requeued_letter_is_accepted_again_and_may_be_done(intake, database, state):
    intake.accept([ticket()])
    dead = DeadLedger(database)
    dead.park([letter("a")])
    with dead.take(["a"]):
        pass
    assert state("a") == "accepted"
    TagLedger(database).write({"a": answered()})
    assert state("a") == "done"


def test_a_requeue_that_fails_leaves_it_dead(intake, database, state):
    intake.accept([ticket()])
    dead = DeadLedger(database)
    dead.park([letter("a")])
    with pytest.raises(ConnectionError), dead.take(["a"]):
        raise ConnectionError
    assert state("a") == "dead"


def test_dropping_a_letter_forgets_the_text_in_the_intake(intake, database, database_url):
    intake.accept([ticket()])
    dead = DeadLedger(database)
    dead.park([letter("a")])
    dead.drop(["a"])
    with database.transaction() as connection:
        assert connection.exec_driver_sql("SELECT body FROM intake").scalar_one() is None


def test_what_was_published_too_often_is_parked_with_the_reason(intake, database, state):
    intake.accept([ticket(), ticket("done", ref="T-2")])
    due = claimed(intake)
    TagLedger(database).write({"done": answered("T-2")})
    intake.give_up(due, "published 5 times and never finished")
    assert (state("a"), state("done")) == ("dead", "done")
    [parked] = DeadLedger(database).list()
    assert (parked.id, parked.reason) == ("a", "published 5 times and never finished")
    assert parked.message["ref"] == "T-1"


def test_says_since_when_live_messages_are_not_finished(intake):
    assert intake.unfinished_since([QUEUE_TICKETS]) is None
    before = datetime.now(UTC)
    intake.accept([bulk(), ticket("a")])
    intake.accept([ticket("b", ref="T-2")])
    since = intake.unfinished_since([QUEUE_TICKETS])
    assert before <= since <= intake.get("a").accepted_at
    intake.published(["a"], now=NOW, again_at=LATER)
    assert intake.unfinished_since([QUEUE_TICKETS]) == since


def test_a_backfill_is_no_load_on_the_live_lane(intake):
    intake.accept([bulk()])
    assert (intake.load().unfinished, intake.load().since) == (0, None)
    intake.accept([ticket()])
    assert intake.load().unfinished == 1
    assert intake.load().since is not None
