"""A PostgreSQL that is gone, slow or killed: nothing is acknowledged, failed or written wrong: rows A6, A18."""

import random
import time
from contextlib import closing

from producers.publisher import Publisher
from tagging.names import TAG_TICKET
from tests.broker.sites import LABELS, Site
from tests.faults.proxy import Proxy
from tests.faults.trial import SEED, Trial, seconds, times
from tests.servers import PostgresServer, wait_until

PREFETCH = 48
DOWN_S = seconds(0, in_a_storm=120)
"""How much longer than it takes the worker to notice."""


def test_without_its_ledger_a_worker_stops_fetching_and_goes_on_where_it_stopped(
    pg_site: Site, postgres_server: PostgresServer
) -> None:
    trial = Trial(pg_site, name="ledger_down")
    with trial.worker().running() as worker:
        trial.accept(1)
        trial.settle()
        postgres_server.stop()
        ids = trial.accept(times(200))
        wait_until("the worker says so", lambda: len(worker.events("ledger.unavailable")) > 3, timeout_s=30)
        time.sleep(DOWN_S)  # the fault itself
        assert trial.left()["waiting"] >= len(ids) - PREFETCH, "fetching stopped"
        assert trial.left()["waiting"] + trial.left()["held"] == len(ids), "nothing is acknowledged"
        assert set(pg_site.states(ids)) == {"PENDING"}, "nothing is answered or failed"
        postgres_server.start()
        recovery_s = trial.wait_for_more()
        trial.settle()
    fault = trial.report(recovery_s=recovery_s)
    assert (fault.lost, fault.dead, fault.dup_runs, fault.dup_effects) == (0, 0, 0, 0)
    assert recovery_s <= 15


def test_a_ledger_that_is_silent_while_a_message_is_to_be_parked_holds_up_no_heartbeat(
    pg_site: Site, postgres_server: PostgresServer
) -> None:
    with Trial(pg_site, name="ledger_silent").worker().running() as worker:
        postgres_server.pause()
        pg_site.send_raw(b"{", headers={"task": TAG_TICKET, "id": "bad-1"})
        wait_until("it is fetched", lambda: not pg_site.queued(), timeout_s=20)
        assert pg_site.client.control.ping(destination=[worker.name], timeout=5, limit=1), "the loop waits for nobody"
        postgres_server.resume()
        wait_until("it is parked", lambda: bool(worker.events("message.parked")), timeout_s=60)
        assert pg_site.dead("bad-1")


def test_a_slow_ledger_makes_a_worker_slow_and_nothing_else(pg_site: Site, postgres_server: PostgresServer) -> None:
    trial = Trial(pg_site, name="ledger_slow")
    with Proxy(postgres_server.port) as network:
        ledger = {"ledger__url": network.url(postgres_server.url)}
        with trial.worker(**ledger).running():
            network.delay(0.5)  # each way: some seconds a transaction
            trial.accept(60)
            trial.wait_for_more()
            network.delay(0)
            recovery_s = trial.wait_for_more()
            trial.settle()
    fault = trial.report(recovery_s=recovery_s)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 0, 0)


def test_shuffled_duplicates_and_a_killed_ledger_leave_the_newest_revision_of_each(
    pg_site: Site, postgres_server: PostgresServer
) -> None:
    trial, documents, rng = Trial(pg_site, name="duplicates"), times(60), random.Random(SEED)
    messages = [ticket(f"D-{i}", revision) for i in range(documents) for revision in (1, 2)] * 3
    rng.shuffle(messages)
    with closing(Publisher(pg_site.settings)) as publisher:
        publisher.publish_all(messages)
    for _task, body, id_ in messages:
        trial.accepted([(id_, body["ref"])], revision=body["revision"])
    with trial.worker().running():
        trial.wait_for_more()
        postgres_server.kill()
        postgres_server.start()
        recovery_s = trial.wait_for_more()
        trial.wait_until_none_is_left()
    fault = trial.report(kills=1, recovery_s=recovery_s)
    assert (fault.lost, fault.wrong_final, fault.dup_effects, fault.dead) == (0, 0, 0, 0)
    assert len(trial.witness.standing()) == documents


def ticket(ref: str, revision: int) -> tuple[str, dict[str, object], str]:
    """What a publisher takes: the task, its message and its id."""
    body = {"text": f"{ref} {revision}", "labels": list(LABELS), "ref": ref, "revision": revision}
    return TAG_TICKET, body, f"{ref}-{revision}"
