"""What customers wrote is, once it is answered or parked, in no key of Redis, event, log or metric: row A41.

Flower's pages have ``tests/guarantees/test_flower.py``.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.request import urlopen

import redis

from producers.publisher import Publisher
from tagging.names import TAG_COMMENT, TAG_MANY, TAG_TICKET
from tests.broker.sites import CANARY, LABELS, Events, Site
from tests.faults.trial import Trial
from tests.servers import HOST, RedisServer, free_port

TEXTS: dict[str, object] = {
    "tagged": CANARY,
    "retried": f"!fail 1 {CANARY}",
    "not finite": f"!nan {CANARY}",
    "too long": CANARY * 2000,
    "no text": {"nested": CANARY},
}
QUICK = {"retries__backoff_s": 0.1, "retries__backoff_max_s": 0.3, "model__name": "fake:failing=1"}


def test_no_text_is_left_where_people_look(site: Site, queues: RedisServer, stores: RedisServer) -> None:
    trial, port = Trial(site, name="leaks"), free_port()
    cache = {"cache__url": f"{stores.url.removesuffix('/0')}/2"}
    with trial.worker(metrics__port=port, **QUICK, **cache).running() as worker:
        with Events(site.client).listening() as events:
            send(trial)
            trial.settle()
            events.wait_for("task-succeeded", "many")
        with urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as reply:
            metrics = str(reply.read(), "utf-8")
        assert worker.stop() == 0
    kept = [held for server in (queues, stores) for held in everything_in(server)]
    shown = {"keys": repr(kept), "events": events.text, "log": worker.text, "metrics": metrics}
    assert len(trial.witness.dead()) == 6, "of tickets and comments those that cannot be done"
    assert [name for name, text in shown.items() if not text] == [], "each has something to look through"
    assert [name for name, text in shown.items() if CANARY in text] == []
    assert trial.report().lost == 0


def send(trial: Trial) -> None:
    """Send each of the texts as a ticket and as a comment, and one message of two more."""
    messages: list[tuple[str, dict[str, Any], str]] = [
        (task, {"text": text, "labels": list(LABELS), "ref": f"{task} {name}"}, f"{task} {name}")
        for task in (TAG_TICKET, TAG_COMMENT)
        for name, text in TEXTS.items()
    ]
    items = [{"text": f"{CANARY} {i}", "ref": "many"} for i in range(2)]
    messages.append((TAG_MANY, {"items": items, "labels": list(LABELS)}, "many"))
    with closing(Publisher(trial.site.settings)) as publisher:
        publisher.publish_all(messages)
    trial.accepted([(id_, id_) for _, _, id_ in messages])


def everything_in(server: RedisServer) -> Iterator[tuple[bytes, Any]]:
    """Each key of every database with its value."""
    readers = {
        b"string": lambda client, key: client.get(key),
        b"hash": lambda client, key: client.hgetall(key),
        b"set": lambda client, key: client.smembers(key),
        b"zset": lambda client, key: client.zrange(key, 0, -1),
        b"list": lambda client, key: client.lrange(key, 0, -1),
    }
    for database in range(3):
        with redis.Redis.from_url(f"{server.url.removesuffix('/0')}/{database}") as client:
            for key in client.scan_iter():
                yield key, readers[client.type(key)](client, key)
