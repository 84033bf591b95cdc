"""Dead letters keep what could not be done, to the last character, until someone requeues or drops it."""

from threading import Event, Thread

import pytest

from ledger.dead import AmbiguousId, DeadLedger, DeadRow
from ledger.tags import TagLedger
from tests.answers import stored
from workers.metrics import DEAD_LETTERS
from workers.ports import DeadLetter, DeadLetters
from workers.stores.ledger_store import LedgerDeadLetters, LedgerTagStore
from workers.stores.memory import MemoryDeadLetters, MemoryMeter


def letter(
    id_: str = "a1", *, payload: str = '{"text": "…"}', reason: str = "InvalidMessage: text: empty"
) -> DeadLetter:
    return DeadLetter(id_, "tagmill.tag_ticket", "tag.tickets", reason, 1, payload)


def row(id_: str, **changes: str) -> DeadRow:
    return DeadRow(**{**letter(id_)._asdict(), **changes})


def parked(letters: DeadLetters, database: object) -> dict[str, DeadLetter]:
    if isinstance(letters, MemoryDeadLetters):
        return {found.id: found for found in letters.parked}
    fields = DeadLetter._fields
    found = DeadLedger(database).list()  # type: ignore[arg-type]  # the fixture's database
    return {one.id: DeadLetter(**{name: getattr(one, name) for name in fields}) for one in found}


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opened(request: pytest.FixtureRequest) -> tuple[DeadLetters, object]:
    if request.param == "memory":
        return MemoryDeadLetters(), None
    database = request.getfixturevalue(f"{request.param}_database")
    return LedgerDeadLetters(DeadLedger(database), meter=MemoryMeter()), database


def test_keeps_what_was_parked(opened):
    opened[0].park([letter("a"), letter("b")])
    assert parked(*opened) == {"a": letter("a"), "b": letter("b")}


def test_the_same_id_again_replaces_the_earlier_letter(opened):
    opened[0].park([letter(reason="first")])
    opened[0].park([letter(reason="second"), letter(reason="third")])
    assert parked(*opened) == {"a1": letter(reason="third")}


@pytest.mark.parametrize("payload", ["", "\x00", "not JSON \ud800", "退款 🐕", "\\u0000", "x" * 1_000_000])
def test_a_payload_is_kept_to_the_last_character(opened, payload):
    opened[0].park([letter(payload=payload)])
    assert parked(*opened)["a1"].payload == payload


def test_an_id_of_any_length_is_kept(ledger):
    endless = "".join(chr(0x4E00 + i) for i in range(10_000))
    ledger.park([row(endless), row("a\x00")])
    assert [ledger.get(id_) is not None for id_ in (endless, "a\x00")] == [True, True]
    assert ledger.drop([endless, "a\x00"]) == 2


def test_parking_nothing_is_fine(opened):
    opened[0].park([])
    assert parked(*opened) == {}


def test_what_the_ledger_parks_is_counted(database):
    meter = MemoryMeter()
    letters = LedgerDeadLetters(DeadLedger(database), meter=meter)
    letters.park([letter("a"), letter("b")])
    letters.park([])
    assert meter.total(DEAD_LETTERS) == 2


def test_closed_stores_open_again_when_they_are_needed(database):
    tags, dead = LedgerTagStore(TagLedger(database)), LedgerDeadLetters(DeadLedger(database), meter=MemoryMeter())
    tags.close()
    dead.park([letter()])
    dead.close()
    tags.write([stored()])


@pytest.fixture
def ledger(database) -> DeadLedger:
    return DeadLedger(database)


def test_lists_the_newest_first_page_by_page(ledger):
    for name in "abc":
        ledger.park([row(name)])
    assert [one.id for one in ledger.list()] == ["c", "b", "a"]
    assert [one.id for one in ledger.list(1, offset=1)] == ["b"]


def test_lists_and_counts_one_task(ledger):
    ledger.park([row("a"), row("b", task="tagmill.tag_many")])
    assert [one.id for one in ledger.list(task="tagmill.tag_many")] == ["b"]
    assert (ledger.count(), ledger.count("tagmill.tag_many"), ledger.count("none")) == (2, 1, 0)


def test_says_when_it_was_parked_in_utc(ledger):
    ledger.park([row("a")])
    assert ledger.get("a").parked_at.utcoffset().total_seconds() == 0


def test_is_found_by_its_id_or_the_beginning_of_it(ledger):
    ledger.park([row("abc-1"), row("abd-2"), row("ab")])
    assert ledger.get("abc").id == "abc-1"
    assert ledger.get("ab").id == "ab"
    assert ledger.get("x") is None
    assert ledger.get("ABC") is None
    assert ledger.get("%") is None


def test_a_beginning_that_fits_several_names_some_of_them(ledger):
    ledger.park([row(f"ab{i}") for i in range(5)])
    with pytest.raises(AmbiguousId, match=r"'ab' begins several ids: ab0, ab1, ab2, …; type more of it"):
        ledger.get("ab")


def test_drops_what_is_named_and_says_how_many_there_were(ledger):
    ledger.park([row(str(i)) for i in range(1_200)])
    assert ledger.drop([str(i) for i in range(1_100)] + ["unknown"]) == 1_100
    assert ledger.count() == 100


def test_taken_letters_are_gone_once_they_were_published(ledger):
    ledger.park([row("a"), row("b")])
    with ledger.take(["a", "unknown"]) as letters:
        assert [one.id for one in letters] == ["a"]
    assert [one.id for one in ledger.list()] == ["b"]


def test_taken_letters_stay_when_publishing_fails(ledger):
    ledger.park([row("a")])
    with pytest.raises(ConnectionError), ledger.take(["a"]):
        raise ConnectionError
    assert ledger.count() == 1


def test_a_letter_that_is_parked_again_while_it_is_requeued_stays(ledger):
    ledger.park([row("a", reason="first")])
    published = Event()

    def fail_again() -> None:
        published.wait(10)
        ledger.park([row("a", reason="again")])

    worker = Thread(target=fail_again)
    worker.start()
    with ledger.take(["a"]):
        published.set()
    worker.join(20)
    assert [one.reason for one in ledger.list()] == ["again"]
