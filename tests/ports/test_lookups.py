"""What is read for every batch is found by an index, however many rows a ledger has gathered."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from ledger.database import Database
from ledger.intake import Intake, Submission
from ledger.tags import TagLedger, TagRow
from tagging.documents import Document
from tagging.messages import WriteBack
from tagging.names import TAG_TICKET
from tests.answers import stored

Steps = list[str]


@contextmanager
def steps() -> Iterator[Steps]:
    """How SQLite goes about each statement that is executed meanwhile."""
    told: Steps = []

    def explain(connection: sa.Connection, cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "DELETE", "WITH"):
            driver = connection.connection.driver_connection
            assert driver is not None
            told.extend(row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", explain)
    try:
        yield told
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", explain)


def scans(told: Steps) -> Steps:
    return [step for step in told if step.startswith(("SCAN tags", "SCAN intake"))]


def submission(n: int) -> Submission:
    message = {"text": "t", "labels": ["a"], "source": "zendesk", "ref": f"T-{n}"}
    return Submission(id=f"m-{n}", task=TAG_TICKET, message=message, idempotency_key=f"key-{n}")


@pytest.fixture
def tags(sqlite_database: Database) -> TagLedger:
    tags = TagLedger(sqlite_database)
    tags.write({f"m-{i}": [TagRow.of(stored(f"T-{i}").answer)] for i in range(50)})
    return tags


DOCUMENTS = [Document("zendesk", f"T-{n}", "ticket") for n in range(3)]


def test_what_stands_for_some_documents(tags):
    with steps() as told:
        assert len(tags.standing(DOCUMENTS)) == 3
        tags.logits(DOCUMENTS)
        assert tags.by_ref("T-1")
    assert told
    assert scans(told) == []


def test_whether_answers_are_overtaken_and_who_answered(tags):
    again = TagRow.of(stored("T-1", revision=0).answer, write_back=WriteBack(system="zendesk"))
    with steps() as told:
        assert tags.write({"late": [again], "m-2": [TagRow.of(stored("T-2").answer)]}).changed == 0
    assert told
    assert scans(told) == []


def test_whether_a_request_was_accepted_before(sqlite_database):
    intake = Intake(sqlite_database)
    until = datetime.now(UTC)
    intake.accept([submission(n) for n in range(20)], claimed_until=until)
    with steps() as told:
        receipts = intake.accept([submission(n) for n in range(3)], claimed_until=until)
    assert {receipt.outcome for receipt in receipts} == {"known"}
    assert told
    assert scans(told) == []
