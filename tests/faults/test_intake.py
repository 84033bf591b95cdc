"""What the intake accepted is done, whatever the broker forgets or refuses: rows A5, A10, A14, A16, A17, A31."""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import redis
from celery import Celery

from tagging.names import QUEUE_TICKETS, TAG_TICKET
from tests.broker.sites import Site
from tests.faults.desk import Desk
from tests.faults.proxy import Proxy
from tests.faults.trial import SEED, Trial, times
from tests.servers import HOST, RedisServer, launched, wait_until

FAULTS = ("flush",) * 3 + ("broker",) * 2 + ("worker",) * 4


def test_a_sweeper_repairs_what_a_broker_forgot_while_everything_dies(
    site: Site, desk: Desk, queues: RedisServer
) -> None:
    trial, faults = Trial(site, name="forgetful_broker"), list(FAULTS)
    random.Random(SEED).shuffle(faults)
    worker = trial.worker()
    with desk.relay(), worker.running():
        for number, fault in enumerate(faults):
            desk.accept(trial, times(40), revision=number + 1, first=number * times(20))
            trial.wait_for_more()
            match fault:
                case "flush":
                    flush(queues)
                case "broker":
                    queues.kill()
                    queues.start()
                case _:
                    trial.kill(worker)
                    worker.launch()
        recovery_s = desk.wait_until_finished(timeout_s=90)
        trial.weigh(worker)
    fault = trial.report(kills=len(faults), recovery_s=recovery_s)
    assert (fault.lost, fault.wrong_final, fault.dup_effects, fault.dead) == (0, 0, 0, 0)
    assert desk.said("relay.swept"), "nothing was repaired, so nothing was shown"
    assert recovery_s <= 60


def test_control_without_an_intake_a_flushed_broker_has_lost_its_messages(site: Site, queues: RedisServer) -> None:
    trial = Trial(site, name="forgetful_broker_bare")
    with trial.worker().running():
        trial.accept(200)
        trial.wait_for_more()
        flush(queues)
        trial.settle()
    if trial.report().lost == 0:
        pytest.fail("void: nothing was lost, so the test with an intake could not have seen a loss")


def test_a_full_broker_costs_nothing_and_accepting_goes_on(site: Site, desk: Desk, queues: RedisServer) -> None:
    trial = Trial(site, name="broker_full")
    with desk.relay(), trial.worker().running() as worker, redis.Redis.from_url(queues.url) as client:
        pid = worker.pid
        desk.accept(trial, 60)
        trial.wait_for_more()
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        accepting_s = desk.accept(trial, 40)
        desk.wait_until_said("relay.broker_lost")
        client.config_set("maxmemory", 0)
        recovery_s = desk.wait_until_finished()
        assert worker.pid == pid
        assert worker.stop() == 0
    fault = trial.report(recovery_s=recovery_s, accepting_s=accepting_s)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 0, 0)


def test_a_publish_that_is_answered_too_late_and_repeated_has_one_effect(site: Site, desk: Desk, proxy: Proxy) -> None:
    trial = Trial(site, name="publish_spike")
    with desk.relay(through=proxy.url(site.settings.broker.url)):
        proxy.hold_reply(answers_a_push)  # stored, and the relay does not learn of it before it gives up
        accepting_s = desk.accept(trial, 50)
        desk.wait_until_said("relay.broker_back", timeout_s=60)
        wait_until("one more is queued than was accepted", lambda: site.queued() > len(trial.refs))
        with trial.worker().running():
            recovery_s = desk.wait_until_finished()
            trial.wait_until_none_is_left()
    fault = trial.report(recovery_s=recovery_s, accepting_s=accepting_s)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 0, 0)
    assert fault.dup_runs, "what was stored twice was delivered twice"


def test_control_plain_celery_stores_twice_what_is_answered_too_late(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="publish_spike_stock")
    with closing(Celery(broker=proxy.url(site.settings.broker.url), set_as_current=False)) as client:
        client.conf.broker_transport_options = {"socket_timeout": 0.5}
        for ref in (f"S-{i}" for i in range(10)):
            proxy.hold_reply(answers_a_push)
            client.send_task(TAG_TICKET, args=[{"ref": ref}], task_id=ref, queue=QUEUE_TICKETS)
            trial.accepted([(ref, ref)])
    with trial.stock_worker().running():
        trial.wait_until_none_is_left()
    if trial.report().dup_effects == 0:
        pytest.fail("void: nothing was stored twice, so the test with an intake could not have seen a second effect")


def answers_a_push(reply: bytes) -> bool:
    """Whether a reply of Redis is the length that LPUSH answers with; that of an empty queue is LLEN's."""
    return reply.startswith(b":") and reply != b":0\r\n"


def test_what_a_lagging_replica_never_had_is_repaired_after_it_took_over(
    site: Site, desk: Desk, queues: RedisServer, proxy: Proxy
) -> None:
    url = proxy.url(site.settings.broker.url)
    with closing(moved(site, url)) as followed, launched(RedisServer) as replica, Proxy(queues.port) as replication:
        trial = Trial(followed, name="failover")
        with desk.relay(through=url):
            follow(replica, replication)
            replication.freeze()
            desk.accept(trial, times(100))
            wait_until("all is published", lambda: site.queued() == len(trial.refs), timeout_s=30)
            queues.kill()
            take_over(replica)
            proxy.lead_to(replica.port)
            proxy.reset_all()
            with trial.worker().running():
                recovery_s = desk.wait_until_finished()
        fault = trial.report(kills=1, recovery_s=recovery_s)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 0, 0)
    assert sum(int(event["n"]) for event in desk.said("relay.swept")) == len(trial.refs), "the replica had none of them"


def test_control_without_an_intake_what_a_lagging_replica_never_had_is_lost(
    site: Site, queues: RedisServer, proxy: Proxy
) -> None:
    url = proxy.url(site.settings.broker.url)
    with closing(moved(site, url)) as followed, launched(RedisServer) as replica, Proxy(queues.port) as replication:
        trial = Trial(followed, name="failover_bare")
        follow(replica, replication)
        replication.freeze()
        trial.accept(100)
        queues.kill()
        take_over(replica)
        proxy.lead_to(replica.port)
        proxy.reset_all()
        with trial.worker().running():
            trial.settle()
    if trial.report(kills=1).lost == 0:
        pytest.fail("void: nothing was lost, so the test with an intake could not have seen a loss")


def test_a_broker_whose_disk_is_full_goes_on_where_it_stopped(site: Site, desk: Desk, small_disk: Path) -> None:
    server, ballast = RedisServer(small_disk), small_disk / "ballast"
    with serving(server), closing(moved(site, server.url)) as there:
        trial = Trial(there, name="disk_full")
        with desk.relay(through=server.url), trial.worker().running():
            desk.accept(trial, 20)
            desk.wait_until_finished()
            fill(ballast)
            accepting_s = desk.accept(trial, 60)
            desk.wait_until_said("relay.broker_lost")
            ballast.unlink()
            recovery_s = desk.wait_until_finished()
        fault = trial.report(recovery_s=recovery_s, accepting_s=accepting_s)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 0, 0)


def moved(site: Site, url: str) -> Site:
    """The same site with its broker at another URL."""
    return Site(broker=site.broker, folder=site.folder, environ={**site.environ, "TAGMILL_BROKER__URL": url})


def follow(replica: RedisServer, primary: Proxy) -> None:
    """Let it replicate; returns once it is in step."""
    with redis.Redis.from_url(replica.url) as client:
        client.execute_command("REPLICAOF", HOST, primary.port)
        wait_until(
            "the replica is in step",
            lambda: client.info("replication")["master_link_status"] == "up",
            timeout_s=20,
        )


def take_over(replica: RedisServer) -> None:
    """Make it a primary."""
    with redis.Redis.from_url(replica.url) as client:
        client.execute_command("REPLICAOF", "NO", "ONE")


def fill(ballast: Path) -> None:
    """Write until the disk has no room."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@contextmanager
def serving(server: RedisServer) -> Iterator[None]:
    """A server that runs inside the block."""
    try:
        server.start()
        yield
    finally:
        server.discard()


def flush(server: RedisServer) -> None:
    """Let it forget everything."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
