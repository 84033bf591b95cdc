"""RabbitMQ killed, silent or losing its consumers loses and buries nothing: rows A2, A8, A9, A12, A21."""

import random
import signal
import time

import pytest
from kombu import Connection, Exchange, Queue

from producers.publisher import Publisher
from tagging.errors import BrokerUnreachable
from tagging.names import EXCHANGE, QUEUE_DEAD, QUEUE_TICKETS, TAG_TICKET
from tagging.wiring import dead_queue_arguments, queue_arguments
from tests.broker.sites import LABELS, Site
from tests.commands import Tagmill
from tests.faults.proxy import Proxy
from tests.faults.trial import SEED, Trial, times
from tests.servers import RabbitServer, wait_until


def test_workers_killed_at_any_moment_lose_nothing(rabbit_site: Site) -> None:
    trial, rng, kills = Trial(rabbit_site, name="sigkill"), random.Random(SEED), times(3)
    trial.accept(150 * kills)
    for _ in range(kills):
        with trial.worker().running() as worker:
            trial.wait_for_more()
            time.sleep(rng.uniform(0, 0.3))  # any moment of a batch will do
            trial.kill(worker)
    with trial.worker().running():
        trial.settle(timeout_s=60 + 10 * kills)
    fault = trial.report(kills=kills)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 0, 0)


def test_a_broker_that_is_killed_and_comes_back_has_kept_everything(rabbit_site: Site, rabbit: RabbitServer) -> None:
    trial = Trial(rabbit_site, name="broker_killed")
    with trial.worker().running():
        trial.accept(200)
        trial.wait_for_more()
        rabbit.kill()
        rabbit.start()
        recovery_s = trial.answers_a_new_one()
        trial.settle()
    fault = trial.report(kills=1, recovery_s=recovery_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)


def test_what_a_publisher_was_told_is_queued_survives_the_brokers_death(
    rabbit_site: Site, rabbit: RabbitServer
) -> None:
    trial = Trial(rabbit_site, name="killed_while_publishing")
    publisher = Publisher(rabbit_site.settings)
    publisher.publish_all([_ticket("W-0")])
    trial.accepted([("W-0", "W-0")])
    _write_definitions(rabbit)
    rabbit.pause()
    with pytest.raises(BrokerUnreachable):
        publisher.publish_all(_ticket(f"W-{i}") for i in range(1, 200))
    rabbit.kill()
    rabbit.start()
    publisher.close()
    with trial.worker().running():
        trial.settle()
    assert trial.report(kills=1).lost == 0


def test_control_without_confirms_a_publisher_believes_what_the_broker_never_got(
    rabbit_site: Site, rabbit: RabbitServer
) -> None:
    trial, believed = Trial(rabbit_site, name="killed_while_publishing_stock"), 200
    queue = Queue(
        QUEUE_TICKETS,
        Exchange(EXCHANGE, type="topic"),
        routing_key=QUEUE_TICKETS,
        queue_arguments=queue_arguments(rabbit_site.settings),
    )
    with Connection(rabbit.url) as connection:
        producer = connection.Producer()
        producer.publish({}, exchange=queue.exchange, routing_key=QUEUE_TICKETS, declare=[queue])
        _write_definitions(rabbit)
        rabbit.pause()
        for _ in range(believed):
            producer.publish({}, exchange=queue.exchange, routing_key=QUEUE_TICKETS)
        trial.accepted([(f"S-{i}", f"S-{i}") for i in range(believed + 1)])
        rabbit.kill()
        connection.collect()
    rabbit.start()
    kept = rabbit_site.queued()
    trial.note_done(f"S-{i}" for i in range(kept))
    if trial.report(kills=1).lost == 0:
        pytest.fail("void: plain publishing lost nothing, so its test could not have seen a loss")


def test_a_worker_recovers_by_itself_from_a_broker_that_has_gone_silent(rabbit_site: Site, rabbit_proxy: Proxy) -> None:
    trial = Trial(rabbit_site, name="half_open")
    url = rabbit_proxy.url(rabbit_site.settings.broker.url)
    with trial.worker(through=url).running() as worker:
        trial.accept(20)
        trial.settle()
        rabbit_proxy.freeze()
        recovery_s = trial.answers_a_new_one(timeout_s=60)
        trial.settle()
        assert worker.stop() == 0, "the same process went on, under the same node name"
    fault = trial.report(recovery_s=recovery_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)


def test_no_innocent_is_buried_by_a_worker_that_dies_again_and_again(rabbit_site: Site) -> None:
    trial = Trial(rabbit_site, name="worker_dies_often")
    trial.accept(40)
    for _ in range(6):
        with trial.worker(model__name="fake:pass_s=0.5", batching__max_messages=4).running() as worker:
            trial.weigh(worker)
            worker.signal(signal.SIGKILL)
            worker.wait()
    with trial.worker().running():
        trial.settle()
    fault = trial.report(kills=6)
    assert (fault.lost, fault.dead) == (0, 0)


def test_what_rabbitmq_gives_up_is_parked_with_its_reason_and_can_be_requeued(
    rabbit_site: Site, rabbit: RabbitServer
) -> None:
    trial = Trial(rabbit_site, name="given_up")
    with trial.worker().running():
        trial.accept(1)
        trial.settle()
        queue = Queue(
            QUEUE_DEAD, Exchange(QUEUE_DEAD, type="fanout"), queue_arguments=dead_queue_arguments(), no_declare=True
        )
        with Connection(rabbit.url) as connection:
            connection.Producer().publish(
                [[{"text": "a text", "labels": list(LABELS)}], {}, {}],
                exchange=queue.exchange,
                routing_key=QUEUE_TICKETS,
                headers={"task": TAG_TICKET, "id": "given-up", "x-death": [{"reason": "delivery_limit"}]},
            )
        wait_until("it is parked", lambda: "given-up" in trial.witness.dead())
        assert "RabbitMQ gave it up: delivery_limit" in trial.witness.dead()["given-up"]
        assert rabbit_site.dead("given-up").queue == QUEUE_TICKETS
        ran = Tagmill(rabbit_site.folder, rabbit_site.environ)("dead", "requeue", "given-up")
        assert ran.code == 0, ran.err
        wait_until("it is answered after all", lambda: "given-up" in trial.witness.answered())


def _write_definitions(rabbit: RabbitServer) -> None:
    """Make the queue an old one: for some seconds RabbitMQ 3 keeps a new queue's definition in memory only."""
    rabbit.control("eval", "mnesia:sync_log().")


def _ticket(ref: str) -> tuple[str, dict[str, object], str]:
    return TAG_TICKET, {"text": f"text {ref}", "labels": list(LABELS), "ref": ref}, ref
