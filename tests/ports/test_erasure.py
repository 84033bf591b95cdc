"""An erased document is gone from everything that the ledger holds, and no late duplicate brings it back."""

import pytest
import sqlalchemy as sa

from ledger.crashes import CrashLedger
from ledger.database import Database
from ledger.dead import DeadLedger, DeadRow
from ledger.erasure import Erased, Eraser
from ledger.intake import Intake, Submission
from ledger.schema import metadata
from ledger.tags import TagLedger, TagRow
from tagging.documents import Document
from tagging.names import QUEUE_BULK, QUEUE_TICKETS, TAG_COMMENT, TAG_MANY, TAG_TICKET
from tests.answers import stored
from tests.writebacks import Desk, answered

CANARY = "canary-4711"
"""Is part of the erased document's texts and of its reference; must be found in no table afterwards."""
REF = f"T-{CANARY}"
GONE = Document("zendesk", REF, "ticket")


def message(ref: str = REF, *, text: str = f"{CANARY} was charged twice") -> dict[str, object]:
    return {"text": text, "labels": ["a", "b"], "source": "zendesk", "ref": ref, "revision": 1}


def ticket(id_: str, ref: str = REF, **options: str) -> Submission:
    return Submission(id=id_, task=TAG_TICKET, message=message(ref), **options)  # type: ignore[arg-type]  # the key


def bulk(id_: str, *refs: str) -> Submission:
    items = [{"text": f"{CANARY} {ref}" if ref == REF else ref, "ref": ref} for ref in refs]
    return Submission(id=id_, task=TAG_MANY, message={"items": items, "labels": ["a", "b"], "source": "zendesk"})


def letter(submission: Submission, *, queue: str = QUEUE_TICKETS) -> DeadRow:
    return DeadRow(
        id=submission.id,
        task=submission.task,
        queue=queue,
        reason="NotFinite: the model answered NaN",
        attempts=3,
        payload=Held.json(submission.message),
    )


class Held:
    """A ledger with a document in every place where one can be."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.intake = Intake(database)
        self.tags = TagLedger(database)
        self.dead = DeadLedger(database)

    @staticmethod
    def json(value: object) -> str:
        import json

        return json.dumps(value)

    def answer(self, id_: str, ref: str, *, revision: int = 1) -> frozenset[Document]:
        return self.tags.write({id_: [TagRow.of(stored(ref, revision=revision).answer)]}).erased

    def erase(self) -> Erased:
        return Eraser(self.database).erase(GONE)

    def traces(self) -> list[str]:
        """The tables in which the canary is."""
        with self.database.transaction() as connection:
            return [
                table.name
                for table in metadata.sorted_tables
                if any(
                    CANARY in (value.decode(errors="replace") if isinstance(value, bytes) else str(value))
                    for row in connection.execute(sa.select(table))
                    for value in row
                )
            ]


@pytest.fixture
def held(database) -> Held:
    return Held(database)


def test_nothing_of_it_is_left_in_any_table(held):
    done, dead, waits = ticket("1"), ticket("2"), ticket("3", idempotency_key=f"webhook-{CANARY}")
    mixed, alone = bulk("4", "T-1", REF, "T-2"), bulk("5", REF)
    held.intake.accept([done, dead, waits, mixed, alone])
    held.answer("1", REF)
    held.dead.park([letter(dead), letter(bulk("6", "T-1", REF), queue=QUEUE_BULK), letter(bulk("7/0", REF))])
    assert set(held.traces()) == {"tags", "dead_letters", "intake"}
    erased = held.erase()
    assert held.traces() == []
    assert (erased.tags, erased.intake, erased.dead_letters) == (1, 5, 3)
    assert {"1", "2", "3", "4", "5", "6", "7/0"} <= erased.task_ids
    assert f"{CANARY} was charged twice" in erased.texts
    assert "was charged twice" not in repr(erased)


def test_its_neighbours_stay_as_they_were_under_their_own_numbers(held):
    held.intake.accept([bulk("4", "T-1", REF, "T-2"), ticket("other", "T-9")])
    held.dead.park([letter(bulk("6", REF, "T-1"), queue=QUEUE_BULK)])
    held.answer("x", "T-9")
    held.erase()
    assert [row.revision for row in held.tags.by_ref("T-9")] == [1]
    assert held.intake.get("other").state == "accepted"
    assert held.intake.get("4").state == "accepted"
    items = held.dead.get("6").message["items"]
    assert [item.get("ref") for item in items] == [None, "T-1"]


def test_a_comment_with_the_same_reference_is_another_document(held):
    held.intake.accept([Submission(id="c", task=TAG_COMMENT, message=message())])
    held.erase()
    assert held.intake.get("c").state == "accepted"


def test_a_late_answer_is_refused_whatever_its_revision(held):
    held.erase()
    assert held.answer("1", REF, revision=99) == {GONE}
    assert held.tags.by_ref(REF) == []


def test_its_messages_end_as_erased_and_a_redelivery_does_not_change_that(held):
    held.intake.accept([ticket("1")])
    held.erase()
    held.answer("1", REF)
    held.dead.park([letter(ticket("1"))])
    assert held.intake.get("1").state == "erased"
    assert held.traces() == []


def test_a_late_duplicate_is_not_accepted(held):
    held.erase()
    receipts = held.intake.accept([ticket("again"), bulk("5", REF), bulk("6", REF, "T-1")])
    assert [receipt.outcome for receipt in receipts] == ["erased", "erased", "accepted"]
    assert held.traces() == []


def test_a_late_letter_is_parked_without_its_text(held):
    held.erase()
    held.dead.park([letter(ticket("1")), letter(bulk("6", REF, "T-1"), queue=QUEUE_BULK)])
    assert held.dead.get("1") is None
    assert held.traces() == []


def test_the_count_of_its_crashes_goes_too(held):
    crashes = CrashLedger(held.database)
    held.intake.accept([ticket("1")])
    crashes.begin("1")
    held.erase()
    assert crashes.begin("1") == 1, "counted anew"


def test_erasing_it_again_finds_nothing(held):
    held.intake.accept([ticket("1")])
    held.erase()
    again = held.erase()
    assert (again.tags, again.intake, again.dead_letters) == (0, 0, 0)


def test_many_pages_of_bulk_messages_are_looked_through(held):
    held.intake.accept([bulk(f"{i:04}", "T-1", REF if i % 100 == 0 else "T-2") for i in range(450)])
    assert held.erase().intake == 5
    assert held.traces() == []


def test_what_we_set_on_its_ticket_is_no_longer_recorded_and_an_order_under_way_ends(held):
    desk = Desk(held.database)
    desk.tagged(answered(REF))
    desk.deliver()
    desk.tagged(answered(REF, revision=2))
    assert {"own_tags", "own_notes", "intake"} <= set(held.traces())
    [under_way] = desk.published()
    assert held.erase().own_tags == 1
    assert held.traces() == []
    assert desk.writer.write(under_way.id, dict(under_way.message)) == "known"
    assert held.traces() == []


def test_an_order_whose_document_is_erased_while_the_system_is_asked_sets_nothing(held):
    desk = Desk(held.database)
    desk.tagged(answered(REF))
    look = desk.system.tags_of
    desk.system.tags_of = lambda ticket: (held.erase(), look(ticket))[1]
    assert desk.deliver() == ["erased"]
    assert "add" not in desk.system.calls
    assert held.traces() == []
