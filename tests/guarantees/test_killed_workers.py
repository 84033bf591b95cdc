"""A message is acknowledged after its tags and its result are stored: a worker that is killed, or loses its
connections or its engine, loses none.

At random moments, many times and with other servers that break: ``tests/faults``.
"""

import os
import signal

import psutil
import pytest

from tests.broker.sites import ANSWER_S, Site
from tests.faults.trial import Trial
from tests.servers import PostgresServer, wait_until

SLOW = {"model__name": "fake:pass_s=0.3,failing=1", "batching__max_messages": 16}
KILLS = 2
ON_REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True, scope="session")
"""For what happens between a worker and its ledger or its own children: no broker takes part in it."""


@ON_REDIS
def test_what_is_computed_and_cannot_be_stored_is_not_acknowledged(
    own_site: Site, postgres_server: PostgresServer
) -> None:
    trial, settings = Trial(own_site, name="not_stored"), {**SLOW, "ledger__url": postgres_server.url}
    with trial.worker(**settings).running() as first:
        assert own_site.send().get(timeout=ANSWER_S)["decision"], "it has a ledger so far"
        postgres_server.stop()
        ids = own_site.send_many(20)
        wait_until("it cannot store", lambda: bool(first.events("ledger.unavailable")), timeout_s=ANSWER_S)
        first.kill()
    assert own_site.done(ids) == 0
    postgres_server.start()
    trial.let_time_run_out()
    with trial.worker(**settings).running():
        wait_until("the next worker answers all", lambda: own_site.done(ids) == len(ids), timeout_s=ANSWER_S)


def test_what_killed_workers_held_is_answered_by_the_next_one(own_site: Site) -> None:
    trial = Trial(own_site, name="killed_workers")
    ids = trial.accept(120)
    for _ in range(KILLS):
        with trial.worker(**SLOW).running() as worker:
            trial.wait_for_more()
            trial.kill(worker)
    trial.let_time_run_out()
    with trial.worker(**SLOW).running():
        trial.settle()
        wait_until("every result is stored", lambda: own_site.done(ids) == len(ids), timeout_s=ANSWER_S)
    fault = trial.report(kills=KILLS)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 0, 0)


def test_a_worker_resumes_when_its_connections_are_closed_in_the_midst_of_a_batch(own_site: Site) -> None:
    with own_site.worker(**SLOW).running() as worker:
        ids = own_site.send_many(100)
        wait_until("some are answered", lambda: own_site.done(ids) >= 16, timeout_s=ANSWER_S)
        own_site.broker.drop_connections(own_site)
        wait_until("all are answered", lambda: own_site.done(ids) == 100, timeout_s=60)
        wait_until("nothing is left", lambda: own_site.queued() == 0, timeout_s=ANSWER_S)
        late = own_site.send()
        assert late.get(timeout=ANSWER_S)["decision"]
        wait_until("nothing is reserved", lambda: not own_site.shown("reserved"), timeout_s=ANSWER_S)
        assert worker.stop() == 0


@ON_REDIS
def test_a_killed_engine_is_started_again_and_nothing_is_lost(own_site: Site) -> None:
    with own_site.worker(**SLOW).running() as worker:
        (engine,) = worker.engine_pids
        ids = own_site.send_many(60)
        wait_until("some are answered", lambda: own_site.done(ids) >= 16, timeout_s=ANSWER_S)
        os.kill(engine, signal.SIGKILL)
        wait_until("all are answered", lambda: own_site.done(ids) == 60, timeout_s=60)
        assert len(worker.events("engine.restarted")) == 1
        assert worker.engine_pids != [engine]
        assert worker.stop() == 0
        assert worker.answered == dict.fromkeys(ids, 1)


@ON_REDIS
def test_a_killed_worker_takes_its_engine_along(own_site: Site) -> None:
    with own_site.worker().running() as worker:
        (engine,) = worker.engine_pids
        worker.signal(signal.SIGKILL)
        worker.wait()
        wait_until("the engine is gone", lambda: not psutil.pid_exists(engine), timeout_s=10)
