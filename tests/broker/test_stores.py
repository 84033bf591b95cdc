"""What was answered is cached, kept in the ledger and written in one go, and none of it shows a text."""

import re

import pytest
import redis

from tests.broker.sites import ANSWER_S, CANARY, LABELS, Events, Site
from tests.processes import Worker
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("worker")


def test_every_key_of_the_cache_expires_and_shows_neither_text_nor_labels(site: Site) -> None:
    site.send().get(timeout=ANSWER_S)
    with site.cache() as cache:
        keys = list(cache.scan_iter())
        assert keys
        assert all(0 < cache.ttl(key) <= 3600 for key in keys)
        stored = b"".join(key + (cache.get(key) or b"") for key in keys)
    assert not [word for word in (CANARY, *LABELS) if word.encode() in stored]


def test_every_result_expires(site: Site) -> None:
    result = site.send()
    result.get(timeout=ANSWER_S)
    with site.results() as client:
        assert 0 < client.ttl(f"celery-task-meta-{result.id}") <= 86_400


def test_the_answers_of_a_batch_cost_one_read_and_one_pipeline(site: Site, worker: Worker, events: Events) -> None:
    blocker = site.send("!sleep 1")
    site.wait_until_running(blocker)
    ids = [site.send(ignore_result=False).id for _ in range(30)]
    wait_until("they wait", lambda: set(ids) <= site.shown("reserved"), timeout_s=ANSWER_S)
    with site.results() as client:
        database = f"[{client.connection_pool.connection_kwargs['db']} "
        with client.monitor() as monitor:
            events.wait_for("task-succeeded", *ids)
            client.publish("tests", "the end of the recording")
            commands = list(_commands(monitor, database))
    assert commands.count("MGET") == 2  # the blocker's and the batch's
    assert commands.count("SET") == commands.count("PUBLISH") == 31
    batch = commands[len(commands) - 1 - commands[::-1].index("MGET") :]
    assert batch == ["MGET", *["SET", "PUBLISH"] * 30]


def _commands(monitor: redis.client.Monitor, database: str) -> list[str]:
    commands = []
    for command in monitor.listen():
        line = command["command"]
        if "the end of the recording" in line:
            return commands
        if f"[{command['db']} " == database and re.search("celery-task-meta-", line):
            commands.append(line.split()[0].upper())
    return commands
