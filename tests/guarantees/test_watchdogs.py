"""A hung device call, a hung loop or a full memory ends what hangs or grows; a server that is down does not."""

import signal
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest
import redis

from tests.broker.fixtures import ManyDatabases
from tests.broker.hangs import PATIENCE_S
from tests.broker.sites import ANSWER_S, Broker, Site
from tests.broker.supervised import is_running, on_cpu
from tests.processes import Worker
from tests.servers import PostgresServer, RedisServer, launched, server_folder, wait_until
from workers.exits import Exit

ON_REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True, scope="session")


@pytest.fixture
def redis_of_its_own() -> Iterator[RedisServer]:
    with launched(ManyDatabases) as server:
        yield server


@pytest.fixture
def site_of_its_own(redis_of_its_own: RedisServer) -> Iterator[Site]:
    """A site whose Redis may be killed."""
    with server_folder("site") as folder, closing(Broker.on(redis_of_its_own, None).site(folder)) as site:
        yield site


def impatient(site: Site, **settings: object) -> Worker:
    """A worker whose loop is given `PATIENCE_S`."""
    worker = site.worker(**settings)
    worker.command = ["tests.broker.hangs" if word == "workers.app" else word for word in worker.command]
    return worker


# The loop


def test_a_loop_that_hangs_ends_its_worker_which_shows_where_it_hung(own_site: Site) -> None:
    with impatient(own_site).running() as worker:
        (engine,) = worker.engine_pids
        own_site.client.control.broadcast("hang", arguments={"seconds": 600}, destination=[worker.name])
        assert worker.wait() == Exit.STUCK
        (stuck,) = worker.events("worker.stuck")
        assert float(stuck["silent_s"]) >= PATIENCE_S
        assert "hangs.py" in worker.text
        assert " in hang" in worker.text
        wait_until("the engine is gone", lambda: not psutil.pid_exists(engine), timeout_s=10)


@ON_REDIS
def test_a_drain_that_takes_longer_is_no_hang(own_site: Site) -> None:
    with impatient(own_site, model__name=f"fake:pass_s={PATIENCE_S / 2}", batching__max_messages=1).running() as worker:
        tasks = [own_site.send() for _ in range(3)]  # one is running, one ready, one fetched
        own_site.wait_until_running(tasks[0])
        assert worker.stop() == 0
        assert not worker.events("worker.stuck")


def test_a_broker_that_is_away_for_longer_is_no_hang(site_of_its_own: Site, redis_of_its_own: RedisServer) -> None:
    with impatient(site_of_its_own).running() as worker:
        redis_of_its_own.kill()
        # It tries again after 2, 4, 6 … seconds, outside its loop.
        wait_until("it has tried for longer than that", lambda: worker.text.count("Trying again in") >= 4, timeout_s=60)
        redis_of_its_own.start()
        assert site_of_its_own.send().get(timeout=60)["decision"]
        assert not worker.events("worker.stuck")
        assert worker.stop() == 0


@ON_REDIS
def test_a_ledger_that_is_away_for_longer_is_no_hang(own_site: Site, postgres_server: PostgresServer) -> None:
    own_site.environ["TAGMILL_LEDGER__URL"] = postgres_server.url
    with impatient(own_site).running() as worker:
        own_site.send().get(timeout=ANSWER_S)
        postgres_server.kill()
        waiting = own_site.send()
        # It reaches no batch and is parked by a thread beside the hub's.
        own_site.send_raw(b"{", headers={"task": "tagmill.tag_ticket", "id": "bad-1"})
        waits = 2 * int(PATIENCE_S) + 1
        wait_until(
            "it has waited for longer than that",
            lambda: len(worker.events("ledger.unavailable")) >= waits,
            timeout_s=60,
        )
        postgres_server.start()
        assert waiting.get(timeout=60)["decision"]
        assert not worker.events("worker.stuck")
        assert worker.stop() == 0


def test_a_results_backend_that_is_silent_holds_up_no_hub_thread(own_site: Site, redis_of_its_own: RedisServer) -> None:
    own_site.environ["TAGMILL_RESULTS__URL"] = redis_of_its_own.url
    with impatient(own_site).running() as worker:
        redis_of_its_own.pause()
        for id_ in ("bad-1", "bad-2"):
            own_site.send_raw(b"{", headers={"task": "tagmill.tag_ticket", "id": id_})
            assert own_site.dead(id_)
        redis_of_its_own.resume()
        with closing(redis.Redis.from_url(redis_of_its_own.url)) as results:
            wait_until("the failure is stored", lambda: bool(results.exists("celery-task-meta-bad-2")), timeout_s=60)
        assert not worker.events("worker.stuck")
        assert worker.stop() == 0


# The device


@ON_REDIS
def test_a_call_that_hangs_on_the_device_is_ended_and_only_its_text_is_given_up(own_site: Site) -> None:
    settings = {"model__name": "fake:failing=1", "model__timeout_s": 1, "retries__max_attempts": 2}
    with own_site.worker(**settings).running() as worker:
        hung = own_site.send("!sleep 600")
        others = [own_site.send() for _ in range(7)]
        for task in others:
            assert task.get(timeout=60)["decision"]
        assert own_site.dead(hung.id).reason.startswith("EngineDied")
        causes = {event["cause"] for event in worker.events("engine.died")}
        assert causes == {"the engine process gave no answer within 1 s and was killed"}
        assert worker.stop() == 0


# Memory


@ON_REDIS
def test_a_worker_that_passes_its_ceiling_finishes_and_is_started_anew_at_once(own_site: Site) -> None:
    environ = {"TAGMILL_MODEL__NAME": "fake:grow_mb=40,pass_s=0.05", "TAGMILL_WORKER__MAX_MEMORY_MB": "700"}
    with on_cpu(own_site, 1, environ) as supervisor:
        supervisor.wait_until_consuming(1)
        (first,) = supervisor.pids()
        tasks = [own_site.send() for _ in range(300)]
        supervisor.wait_until_consuming(2)
        assert not is_running(first)
        for task in tasks:
            assert task.get(timeout=60)["decision"]
        assert supervisor.events("worker.full")
        assert supervisor.events("child.full")
        assert not supervisor.events("child.crashed")
        supervisor.process.send_signal(signal.SIGTERM)
        assert supervisor.ended() == 0


@ON_REDIS
def test_a_worker_of_its_own_that_passes_its_ceiling_says_so_by_its_exit_code(own_site: Site) -> None:
    settings = {"model__name": "fake:grow_mb=100", "worker__max_memory_mb": 500, "batching__max_messages": 1}
    with own_site.worker(**settings).running() as worker:
        tasks = [own_site.send() for _ in range(20)]
        assert worker.wait() == Exit.FULL
        states = own_site.states([task.id for task in tasks])
        assert states.count("SUCCESS") + own_site.queued() == 20
