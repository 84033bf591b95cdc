"""Workers that share a Redis compute a pair once, and a dead one, or a dead Redis, costs the others little."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from tests.pipelines import CountingEngine, message, pipeline, run, tagged
from tests.servers import RedisServer
from workers.ports import Entailment, Pair
from workers.recall import Recall
from workers.stores.local_pairs import LocalPairCache
from workers.stores.memory import MemoryMeter
from workers.stores.redis_pairs import RedisPairCache

LONG_MS = 20_000  # never waited for to its end
SHORT_MS = 500


class Flight:
    """One worker: its pipeline, its engine, and how often it waited."""

    def __init__(self, server: RedisServer, *, wait_ms: int, engine: CountingEngine | None = None) -> None:
        self.meter = MemoryMeter()
        self.shared = RedisPairCache.connect(
            server.url, ttl_s=60, timeout_ms=10_000, connect_timeout_ms=10_000, meter=self.meter
        )
        self.engine = engine or CountingEngine()
        self.pauses = 0
        recall = Recall(
            local=LocalPairCache(max_entries=10_000, ttl_s=60),
            shared=self.shared,
            wait_ms=wait_ms,
            meter=self.meter,
            pause=self._pause,
        )
        self.pipeline = pipeline(self.engine, recall, meter=self.meter)

    def run(self, *texts: str, labels: Sequence[str] = ("a", "b")) -> list[str]:
        """What the answers say about where they came from."""
        messages = [message(text, labels=list(labels)) for text in texts]
        return [tagged(verdict)["cache"] for verdict in run(self.pipeline, *messages)]

    def _pause(self, seconds: float) -> None:
        self.pauses += 1
        time.sleep(seconds)


class MeetingEngine(CountingEngine):
    """Computes only once as many of them as there are parties are computing at the same time."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        self._barrier.wait(timeout=30)
        return super().entail(pairs)


@pytest.fixture
def flights(cache_server: RedisServer) -> Iterator["Flights"]:
    made = Flights(cache_server)
    yield made
    for flight in made:
        flight.shared.close()


class Flights(list[Flight]):
    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self._server = server

    def add(self, *, wait_ms: int = LONG_MS, engine: CountingEngine | None = None) -> Flight:
        self.append(Flight(self._server, wait_ms=wait_ms, engine=engine))
        return self[-1]

    @property
    def asked(self) -> list[Pair]:
        return [pair for flight in self for pair in flight.engine.asked]


def test_a_pair_that_two_workers_want_at_once_is_computed_by_one(flights: Flights) -> None:
    # Each has a text of its own, so that both are on the device at the same time, and all share one more.
    barrier = threading.Barrier(2)
    one, two = (flights.add(engine=MeetingEngine(barrier)) for _ in range(2))
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(one.run, "mine", "ours"), threads.submit(two.run, "yours", "ours")]
        caches = [run.result(timeout=60) for run in runs]
    assert len(flights.asked) == len(set(flights.asked)) == 6
    assert sorted(caches) == [["none", "none"], ["none", "shared"]]


def test_batches_that_overlap_in_any_order_compute_each_pair_once(flights: Flights) -> None:
    texts = [f"text {i}" for i in range(40)]
    label_sets = (["a", "b", "c"], ["b", "c", "d"])
    workers = [flights.add() for _ in range(2)]

    def all_of(flight: Flight, order: Sequence[str], labels: Sequence[str]) -> None:
        for start in range(0, len(order), 8):
            flight.run(*order[start : start + 8], labels=labels)

    with ThreadPoolExecutor(2) as threads:
        orders = (texts, texts[::-1])
        runs = [threads.submit(all_of, *each) for each in zip(workers, orders, label_sets, strict=True)]
        for each in runs:
            each.result(timeout=60)
    assert len(flights.asked) == len(set(flights.asked)) == 40 * 4


def test_a_claimer_that_died_costs_one_wait(flights: Flights) -> None:
    dead, alive = flights.add(wait_ms=SHORT_MS), flights.add(wait_ms=SHORT_MS)
    dead.pipeline.prepare([message(text, labels=["a", "b"]) for text in "xyz"])  # and is never heard of again
    pauses = []
    for text in "xyz":
        assert alive.run(text) == ["none"]
        pauses.append(alive.pauses)
    assert pauses[0] > 0
    assert all(before == after for before, after in pairwise(pauses))


def test_a_redis_that_goes_while_promises_are_out_is_not_waited_for(
    flights: Flights, cache_server: RedisServer
) -> None:
    other, worker = flights.add(), flights.add()
    theirs = [message("x", labels=["a", "b"])]
    promised, ours = other.pipeline.prepare(theirs), worker.pipeline.prepare(theirs)
    assert (promised.needs_device, ours.needs_device) == (True, False)
    cache_server.kill()
    worker.pipeline.exchange(ours)
    assert ours.needs_device
    assert worker.pauses == 0


def test_without_redis_every_worker_answers_by_itself(flights: Flights, cache_server: RedisServer) -> None:
    cache_server.kill()
    for flight in (flights.add(), flights.add()):
        assert flight.run("x", "y") == ["none", "none"]
        assert flight.pauses == 0


def test_a_batch_takes_two_round_trips_and_none_when_memory_knows_it(
    flights: Flights, cache_server: RedisServer
) -> None:
    import redis

    worker, other = flights.add(), flights.add()
    worker.run("warm")  # connected, and the scripts are in the server
    other.run("warm too")
    with redis.Redis.from_url(cache_server.url) as client:

        def commands(flight: Flight, labels: Sequence[str]) -> int:
            client.config_resetstat()
            flight.run(*(f"text {i}" for i in range(64)), labels=labels)
            stats = client.info("commandstats")
            return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "mget"))

        assert commands(worker, ["a", "b"]) == 2
        assert commands(worker, ["a", "b", "c"]) == 2
        assert commands(worker, ["a", "b", "c"]) == 0
        assert commands(other, ["a", "b", "c"]) == 1
