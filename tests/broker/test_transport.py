"""Our Redis transport loses nothing, fetches many messages at once, and shares its queues with stock clients."""

import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Message, Queue
from kombu.simple import SimpleQueue

from tests.broker.sites import ANSWER_S, ROOT, Broker, Site
from tests.servers import RedisServer, server_folder, wait_until
from workers.consuming import TRANSPORTS

A_CHILD_THAT_FETCHES = """
import sys, time
from tests.broker.test_transport import consuming
with consuming(sys.argv[1], prefetch=20) as fetched:
    while len(fetched.messages) < 20:
        fetched.more()
    print("fetched", flush=True)
    time.sleep(60)
"""


class Fetched:
    """What one consumer was given, and how to ask for more."""

    def __init__(self, connection: Connection, channel: Any) -> None:
        self.connection = connection
        self.channel = channel
        self.messages: list[Message] = []

    def more(self, timeout_s: float = 1.0) -> list[Message]:
        """What the next fetch that finds something brings; nothing after the time is up."""
        before = len(self.messages)
        with suppress(socket.timeout):
            self.connection.drain_events(timeout=timeout_s)
        return self.messages[before:]

    def more_until(self, n: int) -> None:
        """Return once it has been given so many."""

        def enough() -> bool:
            self.more(0.2)
            return len(self.messages) >= n

        wait_until(f"{n} messages are fetched", enough, timeout_s=ANSWER_S)


@contextmanager
def consuming(url: str, *queues: str, prefetch: int = 100, **options: Any) -> Iterator[Fetched]:
    """A consumer of our transport."""
    options = {"queue_order_strategy": "priority", **options}
    with ExitStack() as stack:
        connection = stack.enter_context(Connection(url, transport=TRANSPORTS["redis"], transport_options=options))
        channel = stack.enter_context(connection.channel())
        channel.basic_qos(0, prefetch, False)
        fetched = Fetched(connection, channel)
        consumer = Consumer(
            channel, [Queue(q, routing_key=q) for q in queues or ("live",)], on_message=fetched.messages.append
        )
        stack.enter_context(consumer)
        yield fetched


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest.fixture
def url(client: redis.Redis, redis_server: RedisServer) -> str:
    return redis_server.url


def test_one_fetch_brings_as_many_as_there_is_room_for_and_in_order(url: str, client: redis.Redis) -> None:
    publish(url, range(30))
    with consuming(url, prefetch=20) as fetched:
        scripts = calls(client, "eval")
        first = fetched.more()
        assert (numbers(first), calls(client, "eval") - scripts) == (list(range(20)), 1)
        assert client.zcard("unacked_index") == client.hlen("unacked") == 20
        assert fetched.more(0.3) == [], "there is no room"
        acknowledge(fetched, first)
        assert numbers(fetched.more()) == list(range(20, 30))


def test_queues_are_served_by_preference_and_the_last_one_is_not_starved(url: str) -> None:
    publish(url, range(60), queue="live")
    publish(url, range(60), queue="bulk")
    served = []
    with consuming(url, "live", "bulk", prefetch=1) as fetched:
        for _ in range(32):
            (message,) = fetched.more()
            served.append(message.delivery_info["routing_key"])
            message.ack()
    assert served.count("bulk") == 4
    assert served[:7] == ["live"] * 7


@pytest.mark.parametrize(
    "raw", ["not json", "[1]", "null", '"text"', "{}", '{"properties": null}', '{"properties": {"delivery_tag": 5}}']
)
def test_what_is_no_envelope_goes_to_the_dead_and_the_consumer_lives(url: str, client: redis.Redis, raw: str) -> None:
    client.lpush("live", raw)
    publish(url, [1])
    with consuming(url) as fetched:
        assert numbers(fetched.more()) == [1]
    assert client.lrange("tag.dead", 0, -1) == [raw]


def test_what_a_closed_connection_held_comes_back(url: str, client: redis.Redis) -> None:
    publish(url, range(20))
    with consuming(url, prefetch=20) as fetched:
        fetched.more_until(20)
        fetched.channel.client.connection.disconnect()
        assert client.llen("live") == 0
        assert restored_to_another(url) == list(range(20))
        fetched.channel.qos._delivered.clear()  # as if its process had ended: leaving restores nothing


@pytest.mark.parametrize("prefix", ["", "here:"])
def test_what_a_living_consumer_holds_stays_with_it_however_long_it_takes(
    url: str, client: redis.Redis, prefix: str
) -> None:
    options = {"global_keyprefix": prefix, "visibility_timeout": 1}
    publish(url, range(20), **options)
    with consuming(url, **options) as first, consuming(url, **options) as second:
        first.more_until(20)
        first.messages[0].ack()
        for tag in client.hkeys(f"{prefix}unacked"):
            client.zadd(f"{prefix}unacked_index", {tag: 1.0})  # fetched long ago
        first.channel.qos.renew()
        second.channel.qos.restore_visible(num=100, interval=1)
        assert second.more(0.2) == []
        assert client.zcard(f"{prefix}unacked_index") == 19, "what is acknowledged is not brought back"
        acknowledge(first, first.messages[1:])


def test_a_channel_whose_connection_is_gone_closes_without_it(url: str, client: redis.Redis) -> None:
    publish(url, range(20))
    with consuming(url) as fetched:
        fetched.more_until(20)
        transport = fetched.channel.connection
        transport.client, of_old = (
            None,
            transport.client,
        )  # as kombu leaves it when the first attempt to close has failed
        fetched.channel.qos.restore_unacked_once()
        transport.client = of_old
        assert client.zcard("unacked_index") == 20, "they come back when their time is up"


def test_what_a_killed_process_held_comes_back(url: str, client: redis.Redis) -> None:
    publish(url, range(20))
    with subprocess.Popen(
        [sys.executable, "-c", A_CHILD_THAT_FETCHES, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "fetched\n"
        child.send_signal(signal.SIGKILL)
    assert (client.llen("live"), client.hlen("unacked"), client.zcard("unacked_index")) == (0, 20, 20)
    assert restored_to_another(url) == list(range(20))


def test_the_acknowledgements_of_a_batch_take_one_round_trip(url: str, client: redis.Redis) -> None:
    publish(url, range(20))
    with consuming(url) as fetched:
        fetched.more_until(20)
        before = calls(client, "zrem"), calls(client, "hdel")
        acknowledge(fetched, fetched.messages)
        assert (calls(client, "zrem"), calls(client, "hdel")) == (before[0] + 1, before[1] + 1)
    assert client.exists("unacked", "unacked_index", "live") == 0


def test_a_full_redis_stops_neither_fetching_nor_acknowledging(url: str, client: redis.Redis) -> None:
    if int(client.info("server")["redis_version"].partition(".")[0]) < 7:
        pytest.skip("before Redis 7 a script may not run when memory is full")
    publish(url, range(20))
    with consuming(url, prefetch=10) as fetched:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.ResponseError):
            client.set("refused", "x")
        first = fetched.more()
        acknowledge(fetched, first)
        second = fetched.more()
        acknowledge(fetched, second)
        assert numbers([*first, *second]) == list(range(20))
        assert fetched.more(0.5) == [], "the peek is refused, and lived through"
        assert client.zcard("unacked_index") == 0
        client.config_set("maxmemory", 0)
        publish(url, [20])
        fetched.more_until(21)


@pytest.mark.parametrize("prefix", ["", "here:"])
def test_a_stock_client_shares_the_queues_both_ways(url: str, client: redis.Redis, prefix: str) -> None:
    options = {"global_keyprefix": prefix, "priority_steps": [0, 3, 6, 9]}
    publish(url, [9, 0, 6], priorities=True, **options)
    with consuming(url, **options) as fetched:
        fetched.more_until(3)
        assert numbers(fetched.messages) == [0, 6, 9], "0 goes first on Redis"
        acknowledge(fetched, fetched.messages)
    assert client.keys(f"{prefix}unacked*") == []
    publish(url, [9, 0, 6], priorities=True, transport=TRANSPORTS["redis"], **options)
    with Connection(url, transport_options=options) as connection, closing(SimpleQueue(connection, "live")) as queue:
        got = [queue.get(timeout=5) for _ in range(3)]
        assert numbers(got) == [0, 6, 9]
        for message in got:
            message.ack()
    assert client.keys(f"{prefix}unacked*") == []


def test_killed_workers_lose_nothing(many_databases: RedisServer) -> None:
    kills, random_s = 12, random.Random(4711)
    with server_folder("site") as folder, closing(Broker.on(many_databases, None).site(folder)) as site:
        ref_of: dict[str, str] = {}
        for _ in range(kills):
            slow = {"model__name": "fake:pass_s=0.1", "batching__max_messages": 16, "broker__prefetch": 48}
            with site.worker(**slow).running() as worker:
                answered = len(refs_in_ledger(site))
                refs = [f"K-{len(ref_of) + i}" for i in range(125)]
                ref_of |= {site.send(fields={"ref": ref}).id: ref for ref in refs}
                wait_until("it has answered", lambda n=answered: len(refs_in_ledger(site)) > n, timeout_s=ANSWER_S)
                time.sleep(random_s.uniform(0, 0.2))  # any moment of a batch will do
                worker.signal(signal.SIGKILL)
                worker.wait()
        in_ledger = refs_in_ledger(site)
        with redis.Redis.from_url(site.settings.broker.url) as client:
            held = client.hlen("unacked")
            with consuming(site.settings.broker.url, "nothing", visibility_timeout=0) as idle:
                idle.channel.qos.restore_visible(num=10_000, interval=1)
            assert client.hlen("unacked") == 0
            waiting = {
                ref_of[json.loads(raw)["headers"]["id"]]
                for key in client.keys("tag.tickets*")
                for raw in client.lrange(key, 0, -1)
            }
    lost = len(ref_of) - len(in_ledger | waiting)
    print(f"FAULT name=worker_sigkill broker=redis accepted={len(ref_of)} lost={lost} kills={kills}")
    assert lost == 0
    assert held, "no kill met a worker that held something"


def publish(
    url: str,
    values: Any,
    *,
    queue: str = "live",
    priorities: bool = False,
    transport: str = "redis",
    **options: Any,
) -> None:
    """Put numbers on the queue, as a stock client unless told otherwise; each with itself as its priority if asked."""
    with Connection(url, transport=transport, transport_options=options) as connection:
        producer = connection.Producer(auto_declare=False)
        for value in values:
            producer.publish(
                {"number": value},
                routing_key=queue,
                declare=[Queue(queue, routing_key=queue)],
                **({"priority": value} if priorities else {}),
            )


def numbers(messages: list[Message]) -> list[int]:
    """What ``publish`` put into these."""
    return [message.payload["number"] for message in messages]


def acknowledge(fetched: Fetched, messages: list[Message]) -> None:
    """All of them together."""
    with fetched.channel.qos.together():
        for message in messages:
            message.ack()


def restored_to_another(url: str) -> list[int]:
    """What a second consumer gets once the first one's time is up."""
    with consuming(url, visibility_timeout=1) as second:
        assert second.more(0.2) == [], "it is not overdue yet"
        gets: Callable[[], list[Message]] = second.more

        def all_there() -> bool:
            second.channel.qos.restore_visible(num=100, interval=1)
            gets()
            return len(second.messages) >= 20

        wait_until("everything is restored", all_there, timeout_s=10)
        acknowledge(second, second.messages)
        return sorted(numbers(second.messages))


def calls(client: redis.Redis, command: str) -> int:
    """How often the server has run this command."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def refs_in_ledger(site: Site) -> set[str]:
    """The references of the documents that have tags."""
    with closing(sqlite3.connect(site.folder / "ledger.db", timeout=10)) as database:
        try:
            return {ref for (ref,) in database.execute("SELECT ref FROM tags")}
        except sqlite3.OperationalError:
            return set()  # no worker has made the tables yet
