"""Whatever ends a worker, its connection or its engine: nothing is lost."""

import os
import re
import signal
from collections import Counter

import pytest
from celery.result import AsyncResult

from tests.broker.sites import ANSWER_S, CANARY, Site
from tests.processes import Worker
from tests.servers import wait_until

SLOW = {"model__name": "fake:pass_s=0.3", "batching__max_messages": 16}
ON_REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True, scope="session")
"""For what happens between a worker and its own children or its command line: no broker takes part in it."""

_SUCCEEDED = re.compile(r"Task \S+\[(\S+)\] succeeded")


def test_sigterm_finishes_what_was_fetched_and_leaves_the_rest(own_site: Site) -> None:
    ids = _send(own_site, 200)
    with own_site.worker(**SLOW).running() as first:
        wait_until("some are answered", lambda: _done(own_site, ids) >= 16, timeout_s=ANSWER_S)
        assert first.stop() == 0
        done = _done(own_site, ids)
        assert not first.events("buffer.returned"), "what was fetched is finished"
        assert done + own_site.queued() == 200
    with own_site.worker(name="w2@tests").running() as second:
        wait_until("the next worker answers the rest", lambda: _done(own_site, ids) == 200, timeout_s=ANSWER_S)
        second.stop()
    assert _answered(first, second) == dict.fromkeys(ids, 1)


def test_sigquit_hands_back_what_was_fetched(own_site: Site) -> None:
    ids = _send(own_site, 100)
    with own_site.worker(**SLOW).running() as first:
        wait_until("some are answered", lambda: _done(own_site, ids) >= 16, timeout_s=ANSWER_S)
        first.signal(signal.SIGQUIT)
        assert first.wait(15) == 1
        assert _done(own_site, ids) < 100
        assert _done(own_site, ids) + own_site.queued() >= 100
    with own_site.worker(name="w2@tests").running():
        wait_until("the next worker answers the rest", lambda: _done(own_site, ids) == 100, timeout_s=ANSWER_S)


def test_a_worker_resumes_when_its_connections_are_closed_in_the_midst_of_a_batch(own_site: Site) -> None:
    with own_site.worker(**SLOW).running() as worker:
        ids = _send(own_site, 100)
        wait_until("some are answered", lambda: _done(own_site, ids) >= 16, timeout_s=ANSWER_S)
        own_site.broker.drop_connections(own_site)
        wait_until("all are answered", lambda: _done(own_site, ids) == 100, timeout_s=60)
        wait_until("nothing is left", lambda: own_site.queued() == 0, timeout_s=ANSWER_S)
        late = own_site.send()
        assert late.get(timeout=ANSWER_S)["decision"]
        wait_until("nothing is reserved", lambda: not own_site.shown("reserved"), timeout_s=ANSWER_S)
        assert worker.stop() == 0


@ON_REDIS
def test_a_killed_engine_is_started_again_and_nothing_is_lost(own_site: Site) -> None:
    with own_site.worker(**SLOW).running() as worker:
        (engine,) = worker.engine_pids
        ids = _send(own_site, 60)
        wait_until("some are answered", lambda: _done(own_site, ids) >= 16, timeout_s=ANSWER_S)
        os.kill(engine, signal.SIGKILL)
        wait_until("all are answered", lambda: _done(own_site, ids) == 60, timeout_s=60)
        assert len(worker.events("engine.restarted")) == 1
        assert worker.engine_pids != [engine]
        assert worker.stop() == 0
        assert _answered(worker) == dict.fromkeys(ids, 1)


@ON_REDIS
def test_a_killed_worker_takes_its_engine_along(own_site: Site) -> None:
    import psutil

    with own_site.worker().running() as worker:
        (engine,) = worker.engine_pids
        worker.signal(signal.SIGKILL)
        worker.wait()
        wait_until("the engine is gone", lambda: not psutil.pid_exists(engine), timeout_s=10)


@ON_REDIS
@pytest.mark.parametrize(
    ("arguments", "name"),
    [((), None), (("-Q", "tag.bulk"), None), (("-n", "other@%h"), "other@")],
    ids=["no options", "-Q tag.bulk", "-n other@%h"],
)
def test_plain_command_lines_work(own_site: Site, arguments: tuple[str, ...], name: str | None) -> None:
    import socket

    hostname = f"{name or 'celery@'}{socket.gethostname()}"
    worker = own_site.worker(*arguments, name=hostname)
    worker.command = [*worker.command[: worker.command.index("worker") + 1], *arguments]
    with worker.running():
        body = {"labels": ["a", "b"], "items": [{"text": CANARY}]}
        result = own_site.client.send_task("tagmill.tag_many", args=[body], queue="tag.bulk")
        assert result.get(timeout=ANSWER_S)["done"] == 1
        (queues,) = own_site.client.control.inspect(destination=[hostname], timeout=5, limit=1).active_queues().values()
        assert {q["name"] for q in queues} >= {"tag.bulk"}
        assert len(queues) == (1 if "-Q" in arguments else 3)
        assert worker.stop() == 0


def _send(site: Site, n: int) -> list[str]:
    results: list[AsyncResult] = [site.send() for _ in range(n)]
    return [result.id for result in results]


def _done(site: Site, ids: list[str]) -> int:
    return site.states(ids).count("SUCCESS")


def _answered(*workers: Worker) -> Counter[str]:
    return Counter(_SUCCEEDED.findall("".join(worker.text for worker in workers)))
