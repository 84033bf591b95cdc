"""What was answered is cached, kept in the ledger and written in one go, and none of it shows a text."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
import redis

from tagging.digests import hypothesis_digests, text_digest
from tests.broker.sites import ANSWER_S, CANARY, LABELS, Events, Site
from tests.processes import Worker
from tests.servers import wait_until
from workers.ports import Logit, TextKey
from workers.stores.memory import MemoryMeter
from workers.stores.redis_pairs import RedisPairCache

pytestmark = pytest.mark.usefixtures("worker")


def test_the_second_time_a_text_is_answered_from_the_cache(site: Site) -> None:
    fields = {"text": f"asked twice {CANARY}"}
    first, second = (site.send(fields=fields).get(timeout=ANSWER_S) for _ in range(2))
    assert (first["cache"], second["cache"]) == ("none", "local")
    assert first["scores"] == second["scores"]


def test_labels_in_another_order_hit_the_cache_too(site: Site) -> None:
    text = f"asked in two orders {CANARY}"
    first = site.send(fields={"text": text, "labels": ["a", "b", "c"]}).get(timeout=ANSWER_S)
    second = site.send(fields={"text": text, "labels": ["c", "a", "b"]}).get(timeout=ANSWER_S)
    assert second["cache"] == "local"
    assert dict(zip(second["labels"], second["scores"], strict=True)) == pytest.approx(
        dict(zip(first["labels"], first["scores"], strict=True))
    )


def test_another_worker_answers_from_the_shared_cache(own_site: Site) -> None:
    fields = {"text": f"asked of two workers {CANARY}"}
    with own_site.worker().running() as first:
        assert own_site.send(fields=fields).get(timeout=ANSWER_S)["cache"] == "none"
        first.stop()
    with own_site.worker().running():
        assert own_site.send(fields=fields).get(timeout=ANSWER_S)["cache"] == "shared"


def test_what_another_worker_is_computing_is_waited_for(own_site: Site) -> None:
    text = f"asked elsewhere as well {CANARY}"
    with another_worker(own_site) as (cache, key), own_site.worker(cache__single_flight_wait_ms=20_000).running():
        theirs, ours = hypothesis_digests(LABELS)
        cache.claim_many({key(text): [theirs]}, claimant="somebody", lifetime_ms=60_000)
        sent = own_site.send(fields={"text": text})
        wait_until("the worker has shared its pair", lambda: cache.get_many({key(text): [ours]}), timeout_s=ANSWER_S)
        cache.put_many({key(text): {theirs: Logit(1000.0, 0.0)}})
        answer = sent.get(timeout=ANSWER_S)
    assert (answer["cache"], answer["scores"]) == ("pairs", [1.0, 0.0])


def test_what_another_worker_does_not_come_back_with_is_computed(own_site: Site) -> None:
    text = f"asked of a dead worker as well {CANARY}"
    with another_worker(own_site) as (cache, key), own_site.worker(cache__single_flight_wait_ms=50).running():
        cache.claim_many({key(text): list(hypothesis_digests(LABELS))}, claimant="somebody", lifetime_ms=60_000)
        assert own_site.send(fields={"text": text}).get(timeout=ANSWER_S)["cache"] == "none"


@contextmanager
def another_worker(site: Site) -> Iterator[tuple[RedisPairCache, Callable[[str], TextKey]]]:
    """The site's shared cache as another worker sees it, and how it names a text."""
    cache = RedisPairCache.connect(site.settings.cache.url, ttl_s=60, timeout_ms=10_000, meter=MemoryMeter())
    with closing(cache):
        yield cache, lambda text: TextKey(model=f"{'0' * 16}.none.512", text=text_digest(text))


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


def test_a_message_delivered_twice_has_one_row_in_the_ledger(site: Site) -> None:
    fields = {"text": f"sent twice {CANARY}", "ref": "twice-1"}
    for _ in range(2):
        site.send(fields=fields, task_id="twice").get(timeout=ANSWER_S)
    (row,) = site.tags("twice-1")
    again = site.send(fields=fields, task_id="twice")
    again.get(timeout=ANSWER_S)
    site.send().get(timeout=ANSWER_S)
    assert [r.updated_at for r in site.tags("twice-1")] == [row.updated_at]


def test_an_older_revision_never_replaces_a_newer_one(site: Site) -> None:
    for revision in (2, 1):
        site.send(fields={"ref": "edited-1", "revision": revision}).get(timeout=ANSWER_S)
    assert [row.revision for row in site.tags("edited-1")] == [2]


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
