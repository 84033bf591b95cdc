"""What is finished goes after its time, what is not stays, and texts go first."""

from datetime import UTC, datetime, timedelta

import pytest

from ledger.crashes import CrashLedger
from ledger.database import Database
from ledger.dead import DeadLedger, DeadRow
from ledger.intake import Intake, Submission
from ledger.retention import Forgotten, Keep, forget
from ledger.tags import TagLedger
from tagging.names import TAG_TICKET
from tests.writebacks import ACCOUNT, Desk, answered

KEEP = Keep(text_days=7, done_days=30, dead_days=90)


class Aged:
    """A ledger with one message of each fate."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.intake = Intake(database)
        self.dead = DeadLedger(database)
        self.intake.accept([_submission(name) for name in ("waits", "done", "dead")])
        TagLedger(database).write({"done": []})
        self.dead.park([_letter("dead"), _letter("foreign")])

    def forget_after(self, days: float, keep: Keep = KEEP) -> Forgotten:
        return forget(self.database, keep, now=datetime.now(UTC) + timedelta(days=days))

    def texts(self) -> set[str]:
        with self.database.transaction() as connection:
            return {
                id_
                for (id_,) in connection.exec_driver_sql("SELECT id FROM intake WHERE body IS NOT NULL")
            }  # fmt: skip

    def rows(self) -> set[str]:
        return {name for name in ("waits", "done", "dead") if self.intake.get(name) is not None}


def _submission(id_: str) -> Submission:
    return Submission(id=id_, task=TAG_TICKET, message={"text": "…", "ref": id_})


def _letter(id_: str) -> DeadRow:
    return DeadRow(id=id_, task=TAG_TICKET, queue="tag.tickets", reason="r", attempts=1, payload='{"text": "…"}')


@pytest.fixture
def aged(database) -> Aged:
    return Aged(database)


def test_before_its_time_nothing_goes(aged):
    assert not aged.forget_after(6.9)
    assert aged.texts() == aged.rows() == {"waits", "done", "dead"}


def test_first_the_text_of_what_is_done(aged):
    assert aged.forget_after(7.1) == Forgotten(texts=1, rows=0, dead_letters=0, crashes=0)
    assert aged.texts() == {"waits", "dead"}
    assert aged.rows() == {"waits", "done", "dead"}


def test_then_its_row(aged):
    assert aged.forget_after(30.1).rows == 1
    assert aged.rows() == {"waits", "dead"}


def test_dead_letters_go_with_the_rows_of_their_messages(aged):
    assert aged.forget_after(90.1) == Forgotten(texts=1, rows=2, dead_letters=2, crashes=0)
    assert (aged.rows(), aged.dead.count()) == ({"waits"}, 0)


def test_the_count_of_a_crash_whose_message_never_came_back_goes_with_them(aged):
    CrashLedger(aged.database).begin("never-seen-again")
    assert aged.forget_after(89.9).crashes == 0
    assert aged.forget_after(90.1).crashes == 1


def test_what_is_not_finished_never_goes(aged):
    aged.forget_after(10_000)
    assert aged.intake.get("waits").state == "accepted"


def test_a_batch_is_bounded_and_the_next_goes_on(aged):
    aged.intake.accept([_submission(f"{i}") for i in range(700)])
    TagLedger(aged.database).write({f"{i}": [] for i in range(700)})
    assert [aged.forget_after(8).texts for _ in range(3)] == [500, 201, 0]


def test_own_tags_stay_while_they_are_on_their_tickets_and_notes_go(database):
    desk = Desk(database)
    desk.tagged(answered())
    desk.deliver()
    later = desk.now + timedelta(days=31)
    assert forget(database, KEEP, now=later).own == 1, "the note's"
    [kept] = desk.ledger.on_ticket(ACCOUNT, "T-1")
    desk.ledger.removed([kept], now=desk.now)
    assert forget(database, KEEP, now=later).own == 1
    assert desk.ledger.on_ticket(ACCOUNT, "T-1") == []
