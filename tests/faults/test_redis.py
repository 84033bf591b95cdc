"""A Redis that is killed, half-open, full of junk or locked by the dead, and workers that end: rows A1 to A30."""

import random
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from tagging.disagreements import LOOP_WAITS_S
from tests.broker.sites import Site
from tests.faults.proxy import Proxy
from tests.faults.trial import SEED, Trial, seconds, times
from tests.processes import ROOT, Worker
from tests.servers import RedisServer, wait_until


def test_workers_killed_at_any_moment_lose_nothing(site: Site) -> None:
    trial, rng, kills = Trial(site, name="sigkill"), random.Random(SEED), times(3)
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


def test_a_broker_with_an_append_only_file_keeps_everything(site: Site, queues: RedisServer) -> None:
    trial = Trial(site, name="broker_killed")
    with redis.Redis.from_url(queues.url) as client:
        client.config_set("appendonly", "yes")
        wait_until("the file is written", lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        client.config_set("appendfsync", "always")
    with_the_file = RedisServer(queues.folder, options=["--appendonly", "yes"])
    with_the_file.port = queues.port
    try:
        with trial.worker().running():
            trial.accept(200)
            trial.wait_for_more()
            queues.kill()
            with_the_file.start()
            recovery_s = trial.answers_a_new_one()
            trial.settle()
    finally:
        with_the_file.discard()
    fault = trial.report(kills=1, recovery_s=recovery_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)


def test_a_half_open_connection_is_noticed_and_replaced(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="half_open")
    with trial.worker(through=proxy.url(site.settings.broker.url)).running():
        trial.accept(20)
        trial.settle()
        proxy.freeze()
        recovery_s = trial.answers_a_new_one()
        trial.settle()
    fault = trial.report(recovery_s=recovery_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)
    assert recovery_s <= 25


def test_a_broker_that_is_silent_for_long_holds_up_no_worker_beyond_its_silence(
    site: Site, queues: RedisServer
) -> None:
    trial = Trial(site, name="silent")
    with trial.worker(worker__loop_timeout_s=LOOP_WAITS_S).running() as worker:
        trial.accept(20)
        trial.settle()
        queues.pause()
        # Timers that ask the broker, each as long as is waited for an answer, and then the fetch: half a minute.
        wait_until("it has seen that", lambda: "Connection to broker lost" in worker.text, timeout_s=60)
        queues.resume()
        recovery_s = trial.answers_a_new_one()
        trial.settle()
        assert not worker.events("worker.stuck")
        assert worker.stop() == 0, "the same process went on"
    fault = trial.report(recovery_s=recovery_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)


def test_junk_in_a_queue_is_quarantined_and_kills_nobody(site: Site, queues: RedisServer) -> None:
    trial, junk = Trial(site, name="junk"), [b"not json", b"{}", b"\xff\xfe", b"[1]", b"null", b'"x"']
    with trial.worker().running() as worker, redis.Redis.from_url(queues.url) as client:
        client.lpush("tag.tickets", *junk)
        trial.accept(20)
        trial.settle()
        assert sorted(client.lrange("tag.dead", 0, -1)) == sorted(junk)
        assert worker.stop() == 0
    assert trial.report().lost == 0


def test_a_buffer_longer_than_the_visibility_timeout_and_clocks_apart_run_nothing_twice(site: Site) -> None:
    trial = Trial(site, name="buffer_outlives_timeout")
    slow = {"model__name": "fake:pass_s=0.8", "batching__max_messages": 2, "broker__prefetch": 40}
    early, late = trial.worker(**slow), trial.worker(name="w2@tests", **slow)
    with apart(early, -120).running(), apart(late, 120).running():
        trial.accept(80)
        trial.settle()
        assert clock_of(late) - clock_of(early) > 200, "or the test shows nothing about clocks"
    fault = trial.report()
    assert (fault.lost, fault.dup_runs, fault.dup_effects) == (0, 0, 0)


def test_control_plain_celery_runs_twice_what_waits_longer_than_the_visibility_timeout(site: Site) -> None:
    trial = Trial(site, name="buffer_outlives_timeout_stock")
    with trial.stock_worker(pool="threads", task_s=0.2, visibility_s=2).running():
        trial.accept(30)
        wait_until_run(trial)
    must_have_repeated(trial)


def test_control_plain_celery_runs_twice_what_workers_hold_whose_clocks_are_apart(site: Site) -> None:
    trial = Trial(site, name="clocks_apart_stock")
    early = trial.stock_worker(pool="threads", task_s=0.1)
    late = trial.stock_worker(name="stock2@tests", pool="threads", task_s=0.1)
    with apart(early, -120).running(), apart(late, 120).running():
        trial.accept(40)
        wait_until_run(trial)
    must_have_repeated(trial)


def wait_until_run(trial: Trial) -> None:
    """Return once workers of plain Celery have run all that they received, of which the broker may know no more."""
    trial.wait_until_none_is_left()
    for worker in trial.workers:
        wait_until(
            f"{worker.name} has nothing to do",
            lambda worker=worker: worker.text.count(" received") == worker.text.count(" succeeded in "),
            timeout_s=60,
            every_s=0.2,
        )


def must_have_repeated(trial: Trial) -> None:
    """The control saw second runs, or the test that it belongs to is void."""
    if trial.report().dup_effects == 0:
        pytest.fail(f"void: {trial.name} ran nothing twice, so its test could not have seen that")


def test_the_lock_of_a_worker_that_died_while_restoring_holds_nobody_up(site: Site, queues: RedisServer) -> None:
    trial = Trial(site, name="orphan_lock")
    trial.accept(40)
    with trial.worker(model__name="fake:pass_s=5").running() as worker:
        trial.wait_until_fetched()
        worker.signal(signal.SIGKILL)
        worker.wait()
    with trial.worker().running(), redis.Redis.from_url(queues.url) as client:
        trial.let_time_run_out()
        client.set("unacked_mutex", "of a dead worker", ex=4)  # as kombu leaves it with our options
        recovery_s = trial.wait_for_more()
        trial.settle()
    assert trial.report(kills=1, recovery_s=recovery_s).lost == 0


def test_results_that_cannot_be_stored_cost_no_tags(site: Site, stores: RedisServer) -> None:
    trial = Trial(site, name="results_down")
    with trial.worker().running():
        stores.kill()
        trial.accept(20)
        wait_until("all tags stand", lambda: len(trial.witness.standing()) == 20, timeout_s=60)
        time.sleep(seconds(0, in_a_storm=60))  # the fault itself
        stores.start()
        recovery_s = trial.answers_a_new_one()
        trial.wait_until_none_is_left()
    fault = trial.report(recovery_s=recovery_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)


def test_a_worker_that_is_asked_to_end_under_load_loses_and_repeats_nothing(site: Site) -> None:
    trial = Trial(site, name="sigterm")
    trial.accept(times(200))
    with trial.worker().running() as worker:
        trial.wait_for_more()
        began = time.monotonic()
        assert worker.stop() == 0
        ended_s = time.monotonic() - began
    assert len(trial.done) + site.queued() == len(trial.refs), "each is answered or back in its queue"
    with trial.worker(name="w2@tests").running():
        trial.settle()
    fault = trial.report(recovery_s=ended_s)
    assert (fault.lost, fault.dead, fault.dup_runs, fault.dup_effects) == (0, 0, 0, 0)
    assert ended_s <= 30


def apart(worker: Worker, seconds: float) -> Worker:
    """The worker, its clock so far from ours."""
    folder = Path(__file__).parent / "skewed_clock"
    worker.command = ["env", f"SKEW_S={seconds}", f"PYTHONPATH={folder}:{ROOT}", *worker.command]
    return worker


def clock_of(worker: Worker) -> float:
    """When the worker began to log, by its own clock."""
    lines = (line for line in worker.text.splitlines() if line.startswith("[20"))
    return datetime.strptime(next(lines)[1:20], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
