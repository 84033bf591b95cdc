"""What was accepted is tagged or parked, though the broker is away, blocks, or forgets everything.

The intake, relay and sweeper by themselves: ``tests/ports/test_intake.py``, ``tests/ports/test_relay.py``; under faults
of the network and the ledger: ``tests/faults/test_intake.py``.
"""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from ledger.intake import Submission
from producers.publisher import Publisher
from tagging.errors import BrokerUnreachable
from tagging.names import TAG_MANY, TAG_TICKET
from tagging.settings import load
from tests.broker.intake_desk import Desk, text
from tests.broker.sites import CANARY, LABELS, Broker, Site
from tests.servers import RabbitServer, RedisServer, free_port, launched, server_folder, wait_until

QUICK = {
    "TAGMILL_INTAKE__SWEEP_AFTER_S": "18",
    "TAGMILL_INTAKE__BACKOFF_MAX_S": "2",
    "TAGMILL_BROKER__VISIBILITY_TIMEOUT_S": "10",
    "TAGMILL_BATCHING__DRAIN_S": "5",
    "TAGMILL_MODEL__TIMEOUT_S": "1",
}


def test_a_relay_publishes_what_was_accepted_and_a_worker_finishes_it(intake_desk: Desk, site: Site) -> None:
    many = Submission(
        id="relay-many", task=TAG_MANY, message={"items": [{"text": "a"}, {"text": ""}], "labels": list(LABELS)}
    )
    wrong = text("relay-wrong", labels=[])
    intake_desk.intake.accept([text("relay-1"), text("relay-2"), many, wrong])
    with intake_desk.relay() as log:
        intake_desk.wait_for("done", "relay-1", "relay-2", "relay-many")
        intake_desk.wait_for("dead", "relay-wrong")
    assert site.tags("R-relay-1")[0].task_id == "relay-1"
    assert "labels: none given" in (intake_desk.row("relay-wrong").reason or "")
    assert CANARY not in log.read_text()


def test_enqueue_needs_no_relay_and_says_what_it_accepted_before(intake_desk: Desk) -> None:
    arguments = ("enqueue", f"hello {CANARY}", "-l", ",".join(LABELS), "--ref", "E-1", "--once", "--json")
    first, second = intake_desk.command(*arguments, "--wait", "30"), intake_desk.command(*arguments)
    assert first.code == second.code == 0, first.err
    assert first.rows[0]["id"] == second.rows[0]["id"]
    assert intake_desk.row(first.rows[0]["id"]).state == "done"
    status = intake_desk.command("status", "E-1", "--json").rows[0]
    assert (status["state"], status["intake"][0]["publishes"]) == ("TAGGED", 1)


def test_what_goes_past_the_intake_is_answered_and_not_in_it(intake_desk: Desk) -> None:
    done = intake_desk.command("enqueue", "hello", "-l", ",".join(LABELS), "--direct", "--wait", "30", "--json")
    assert done.code == 0, done.err
    assert intake_desk.row(done.rows[0]["id"]) is None


# Outages: servers of their own.


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with launched(RedisServer) as server:
        yield server


@pytest.fixture
def outage(own_redis: RedisServer, many_databases: RedisServer) -> Iterator[Desk]:
    """A desk whose Redis may be ended; results and cache are elsewhere."""
    with server_folder("outage") as folder, closing(Broker.on(many_databases, None).site(folder)) as site:
        site.close()
        site.environ |= {**QUICK, "TAGMILL_BROKER__URL": own_redis.url}
        site.settings = load(environ=site.environ).settings
        site.connect()
        with closing(Desk.new(site)) as desk:
            yield desk


def test_enqueue_accepts_while_the_broker_is_away_and_a_relay_publishes_it_later(
    outage: Desk, own_redis: RedisServer
) -> None:
    own_redis.stop()
    away = outage.command("enqueue", "hello", "-l", ",".join(LABELS), "--ref", "A-1", "--json")
    assert away.code == 3
    assert "accepted, and not on the queue yet" in away.err
    id_ = away.rows[0]["id"]
    with outage.relay() as log:
        wait_until("the relay has noticed", lambda: "relay.broker_lost" in log.read_text(), timeout_s=20)
        own_redis.start()
        with outage.site.worker(**_settings()).running():
            outage.wait_for("done", id_)
        wait_until("the relay says so", lambda: "relay.broker_back" in log.read_text(), timeout_s=20)


def test_what_the_broker_forgot_is_published_again(outage: Desk, own_redis: RedisServer) -> None:
    ids = [f"lost-{i}" for i in range(40)]
    outage.intake.accept([text(id_) for id_ in ids])
    with outage.relay():
        outage.wait_for("published", *ids)
        with redis.Redis.from_url(own_redis.url) as client:
            client.flushall()
        with outage.site.worker(**_settings()).running():
            outage.wait_for("done", *ids, timeout_s=60)
    assert max(outage.row(id_).publishes for id_ in ids) == 2


def test_without_a_results_backend_tags_are_stored_and_the_intake_is_finished(
    outage: Desk, own_redis: RedisServer
) -> None:
    nowhere = {"results__url": f"redis://127.0.0.1:{free_port()}/0"}
    ids = [f"r-{i}" for i in range(5)]
    outage.intake.accept([text(id_) for id_ in ids])
    with outage.relay(), outage.site.worker(**_settings(), **nowhere).running():
        outage.wait_for("done", *ids)
    assert all(outage.site.tags(f"R-{id_}") for id_ in ids)


@pytest.fixture
def own_rabbit() -> Iterator[RabbitServer]:
    with launched(RabbitServer) as server:
        yield server


def test_a_rabbitmq_that_takes_nothing_more_is_given_up_and_accepting_goes_on(
    outage: Desk, own_rabbit: RabbitServer
) -> None:
    environ = {**outage.site.environ, "TAGMILL_BROKER__URL": own_rabbit.url}
    with closing(Publisher(load(environ=environ).settings)) as publisher:
        publisher.publish(TAG_TICKET, text("before").message)
        own_rabbit.control("set_vm_memory_high_watermark", "absolute", "1")
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            publisher.publish(TAG_TICKET, text("during").message)
        print(f"a publish that RabbitMQ blocks failed after {time.monotonic() - began:.1f} s")
    assert [receipt.outcome for receipt in outage.intake.accept([text("alarm")])] == ["accepted"]
    with outage.relay(TAGMILL_BROKER__URL=own_rabbit.url) as log:
        wait_until("the relay has noticed", lambda: "relay.broker_lost" in log.read_text(), timeout_s=40)
        own_rabbit.control("set_vm_memory_high_watermark", "0.4")
        outage.wait_for("published", "alarm")


def _settings() -> dict[str, str]:
    return {name.removeprefix("TAGMILL_").lower(): value for name, value in QUICK.items()}
