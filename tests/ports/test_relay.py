"""A relay publishes what the intake accepted, survives a broker that comes and goes, and repairs what a broker lost."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
import structlog

from ledger.database import Database
from ledger.dead import DeadLedger
from ledger.intake import Intake, State, Submission
from ledger.retention import Forgotten
from ledger.tags import TagLedger
from producers.relay import Relay
from tagging.errors import BrokerUnreachable, StoreUnavailable
from tagging.names import QUEUE_OF_TASK, QUEUE_TICKETS, TAG_TICKET
from tagging.settings import IntakeSettings

SETTINGS = IntakeSettings(sweep_after_s=900, max_publishes=3, backoff_s=1, backoff_max_s=8)


class BrokerInMemory:
    """Queues of ids; it can be away, fail at one message, or lose everything."""

    def __init__(self) -> None:
        self.queues: dict[str, list[str]] = {}
        self.away = False
        self.refuses: str | None = None

    def publishing(self, messages: Iterable[tuple[str, Mapping[str, Any], str]]) -> Iterator[str]:
        for task, _message, id_ in messages:
            if self.away or id_ == self.refuses:
                raise BrokerUnreachable("away")
            self.queues.setdefault(QUEUE_OF_TASK[task], []).append(id_)
            yield id_

    def waiting(self, queue: str) -> int:
        if self.away:
            raise BrokerUnreachable("away")
        return len(self.queues.get(queue, []))

    @property
    def tickets(self) -> list[str]:
        return self.queues.get(QUEUE_TICKETS, [])


class Bench:
    """A relay over a real ledger, a broker in memory and a clock that the test moves."""

    def __init__(self, database: Database) -> None:
        self.now = datetime.now(UTC) + timedelta(seconds=1)
        self.intake = Intake(database)
        self.tags = TagLedger(database)
        self.dead = DeadLedger(database)
        self.broker = BrokerInMemory()
        self.forgotten: list[Forgotten] = []
        self.relay = self.new_relay()

    def new_relay(self) -> Relay:
        return Relay(
            intake=self.intake, broker=self.broker, settings=SETTINGS, forget=self.forget, clock=lambda: self.now
        )

    def forget(self, _now: datetime) -> Forgotten:
        return self.forgotten.pop() if self.forgotten else Forgotten(texts=0, rows=0, dead_letters=0, crashes=0)

    def accept(self, *ids: str) -> None:
        self.intake.accept(
            [Submission(id=id_, task=TAG_TICKET, message={"text": "…", "ref": f"T-{id_}"}) for id_ in ids]
        )

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def states(self) -> dict[State, int]:
        return self.intake.counts()


@pytest.fixture
def bench(sqlite_database) -> Bench:
    return Bench(sqlite_database)


def test_publishes_in_the_order_of_acceptance_and_notes_it(bench):
    bench.accept("b")
    bench.accept("a")
    assert bench.relay.step() == 0.0
    assert bench.broker.tickets == ["b", "a"]
    assert bench.states() == {"published": 2}


def test_waits_a_little_when_there_is_nothing_to_do(bench):
    assert bench.relay.step() == SETTINGS.poll_ms / 1000


def test_publishes_nothing_twice_while_it_is_not_overdue(bench):
    bench.accept("a")
    for _ in range(5):
        bench.relay.step()
        bench.wait(60)
    assert bench.broker.tickets == ["a"]


def test_while_the_broker_is_away_everything_stays_accepted_and_then_goes(bench):
    bench.accept("a", "b")
    bench.broker.away = True
    pauses = []
    for _ in range(6):
        pauses.append(bench.relay.step())
        bench.wait(pauses[-1])
    assert bench.states() == {"accepted": 2}
    assert 0.5 <= pauses[0] <= 1
    assert 4 <= pauses[-1] <= 8
    bench.broker.away = False
    for _ in range(3):
        bench.relay.step()
        bench.wait(SETTINGS.backoff_max_s)
    assert sorted(bench.broker.tickets) == ["a", "b"]


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(bench):
    bench.accept("a", "b")
    bench.broker.away = True
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            bench.relay.step()
        bench.broker.away = False
        for _ in range(4):
            bench.wait(SETTINGS.backoff_max_s)
            bench.relay.step()
    assert [line["event"] for line in lines] == ["relay.broker_lost", "relay.broker_back"]


def test_what_was_confirmed_before_a_failure_is_not_published_again(bench):
    bench.accept("a", "b", "c")
    bench.broker.refuses = "b"
    bench.relay.step()
    assert bench.broker.tickets == ["a"]
    bench.broker.refuses = None
    for _ in range(3):
        bench.wait(SETTINGS.backoff_max_s)
        bench.relay.step()
    assert sorted(bench.broker.tickets) == ["a", "b", "c"]


def test_a_message_that_the_broker_never_takes_does_not_hold_up_the_others(bench):
    bench.accept("a", "b", "c")
    bench.broker.refuses = "a"
    for _ in range(4):
        bench.relay.step()
        bench.wait(0.5)
    assert bench.broker.tickets == ["b", "c"]


def test_what_a_relay_claimed_and_never_published_is_published_by_another(bench):
    bench.accept("a")
    bench.intake.claim(now=bench.now, until=bench.now + timedelta(seconds=SETTINGS.claim_s), limit=1)
    bench.relay.step()
    assert bench.broker.tickets == []
    bench.wait(SETTINGS.claim_s)
    bench.new_relay().step()
    assert bench.broker.tickets == ["a"]


def test_what_a_broker_lost_is_published_again_and_only_that(bench):
    bench.accept("lost", "waits", "done")
    bench.relay.step()
    bench.tags.write({"done": []})
    bench.broker.queues[QUEUE_TICKETS] = ["waits"]
    bench.wait(SETTINGS.sweep_after_s)
    with structlog.testing.capture_logs() as lines:
        bench.relay.step()
    # Which of the two the queue lost nobody can tell; the older one is published again.
    assert len(bench.broker.tickets) == 2
    assert [line["event"] for line in lines] == ["relay.swept"]
    assert bench.states() == {"published": 2, "done": 1}


def test_a_backlog_is_not_published_again_however_long_it_waits(bench):
    bench.accept(*map(str, range(50)))
    bench.relay.step()
    for _ in range(10):
        bench.wait(SETTINGS.sweep_after_s)
        bench.relay.step()
    assert len(bench.broker.tickets) == 50


def test_what_is_lost_again_and_again_is_parked(bench):
    bench.accept("a")
    with structlog.testing.capture_logs() as lines:
        for _ in range(8):
            bench.relay.step()
            bench.broker.queues.clear()
            bench.wait(SETTINGS.sweep_after_s)
    assert bench.states() == {"dead": 1}
    [letter] = bench.dead.list()
    assert letter.reason == "published 3 times and never finished"
    assert [line["n"] for line in lines if line["event"] == "relay.gave_up"] == [1]


def test_without_the_broker_nothing_is_given_up_or_counted(bench):
    bench.accept("a")
    bench.relay.step()
    bench.broker.away = True
    for _ in range(20):
        bench.wait(SETTINGS.sweep_after_s)
        bench.relay.step()
    assert bench.intake.get("a").publishes == 1
    assert bench.states() == {"published": 1}


def test_a_ledger_that_is_away_is_waited_for(bench, monkeypatch):
    def away(_now: datetime) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(bench.intake, "has_due", away)
    with structlog.testing.capture_logs() as lines:
        assert bench.relay.step() >= 0.5
        monkeypatch.undo()
        bench.relay.step()
    assert [line["event"] for line in lines] == ["relay.ledger_lost", "relay.ledger_back"]


def test_forgets_old_things_a_batch_a_step_until_there_are_none(bench):
    bench.forgotten = [Forgotten(texts=1, rows=0, dead_letters=0, crashes=0)] * 3
    assert [bench.relay.step() for _ in range(5)] == [0.0, 0.0, 0.0, 0.2, 0.2]


def test_stops_when_it_is_told_to(bench):
    stop = Event()
    stop.set()
    bench.accept("a")
    bench.relay.run(stop)
    assert bench.states() == {"accepted": 1}
