"""Behind Sentinel a worker follows the queues to the Redis that takes over."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from tests.broker.sites import ANSWER_S, Broker, Site
from tests.servers import HOST, RedisServer, server_folder, wait_until

MASTER = "queues"
TAKES_OVER_S = 60.0


class SentinelServer(RedisServer):
    """Two of them watch a Redis and have to agree."""

    name = "sentinel"

    def __init__(self, folder: Path, watched: RedisServer) -> None:
        super().__init__(folder)
        self._watched = watched

    @property
    def url(self) -> str:
        return f"sentinel://{HOST}:{self.port}"

    def prepare(self) -> None:
        (self.folder / "sentinel.conf").write_text(
            f"bind {HOST}\nport {self.port}\ndir {self.folder}\n"
            f"sentinel monitor {MASTER} {HOST} {self._watched.port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )

    def command(self) -> list[str | Path]:
        program = super().command()[0]
        return [program, self.folder / "sentinel.conf", "--sentinel"]


class Watched:
    """A Redis, its replica, and the two that watch them."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinels: Sequence[SentinelServer]) -> None:
        self.master = master
        self.replica = replica
        self._sentinels = sentinels

    @property
    def url(self) -> str:
        return ";".join(sentinel.url for sentinel in self._sentinels)

    def wait_until_ready(self) -> None:
        """Return once the replica follows, and each Sentinel knows it and the other one."""
        for sentinel in self._sentinels:
            with redis.Redis(host=HOST, port=sentinel.port, decode_responses=True) as client:
                wait_until("Sentinel knows them all", lambda client=client: _knows_all(client), timeout_s=TAKES_OVER_S)

    def fail_over(self) -> None:
        """Kill the master; returns once the replica has taken over."""
        with redis.Redis(host=HOST, port=self.master.port) as client:
            client.execute_command("WAIT", 1, 5000)  # what was acknowledged to clients has reached the replica
        self.master.kill()
        wait_until("the replica is the master", self._has_taken_over, timeout_s=TAKES_OVER_S, every_s=0.1)

    def _has_taken_over(self) -> bool:
        return all(_master_of(sentinel) == (HOST, self.replica.port) for sentinel in self._sentinels)


def _master_of(sentinel: SentinelServer) -> tuple[str, int]:
    with redis.Redis(host=HOST, port=sentinel.port, decode_responses=True) as client:
        host, port = client.sentinel_get_master_addr_by_name(MASTER)
        return host, int(port)


def _knows_all(client: redis.Redis) -> bool:
    [told] = client.sentinel_masters().values()
    return bool(told["num-slaves"] == 1 and told["num-other-sentinels"] == 1)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:

        def started(server: RedisServer) -> RedisServer:
            stack.callback(server.discard)
            return server.start()

        def folder(name: str) -> Path:
            return stack.enter_context(server_folder(name))

        master = started(RedisServer(folder("master")))
        replica = started(RedisServer(folder("replica"), options=["--replicaof", HOST, str(master.port)]))
        sentinels = [SentinelServer(folder(f"sentinel{n}"), master) for n in range(2)]
        for sentinel in sentinels:
            started(sentinel)
        watched = Watched(master, replica, sentinels)
        watched.wait_until_ready()
        yield watched


@pytest.fixture
def sentinel_site(watched: Watched, redis_server: RedisServer) -> Iterator[Site]:
    """A site whose queues are behind Sentinel."""
    with server_folder("site") as folder:
        environ = {
            "TAGMILL_BROKER__URL": watched.url,
            "TAGMILL_BROKER__SENTINEL_MASTER": MASTER,
            "TAGMILL_RESULTS__URL": redis_server.url,
            "TAGMILL_CACHE__URL": "",
            "TAGMILL_LEDGER__URL": f"sqlite:///{folder}/ledger.db",
            "TAGMILL_MODEL__NAME": "fake:pass_s=0.2",
            "TAGMILL_BATCHING__MAX_MESSAGES": "8",
            "TAGMILL_BATCHING__DRAIN_S": "1",
            "TAGMILL_BROKER__VISIBILITY_TIMEOUT_S": "10",
        }
        with closing(Site(broker=Broker("redis", redis_server, None), folder=folder, environ=environ)) as site:
            yield site


def test_a_master_that_evicts_is_refused(sentinel_site: Site, watched: Watched) -> None:
    with redis.Redis(host=HOST, port=watched.master.port) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    worker = sentinel_site.worker()
    worker.launch()
    try:
        assert worker.wait() != 0
        assert "maxmemory-policy allkeys-lru evicts queued messages" in worker.text
    finally:
        worker.kill()
        with redis.Redis(host=HOST, port=watched.master.port) as client:
            client.config_set("maxmemory-policy", "noeviction")


def test_sentinels_that_are_away_are_named(sentinel_site: Site) -> None:
    sentinel_site.environ["TAGMILL_BROKER__URL"] = "sentinel://127.0.0.1:1;sentinel://127.0.0.1:2"
    worker = sentinel_site.worker()
    worker.launch()
    try:
        assert worker.wait() != 0
        assert "sentinel://127.0.0.1:1;sentinel://127.0.0.1:2 cannot be reached" in worker.text
    finally:
        worker.kill()


def test_a_worker_and_a_producer_follow_to_the_redis_that_takes_over(sentinel_site: Site, watched: Watched) -> None:
    with sentinel_site.worker().running() as worker:
        before = [sentinel_site.send() for _ in range(40)]
        assert before[0].get(timeout=ANSWER_S)["decision"]
        watched.fail_over()
        sentinel_site.close()
        sentinel_site.connect()
        after = [sentinel_site.send() for _ in range(5)]
        # What it held when the master died is registered on the other one as well.
        assert all(task.get(timeout=2 * ANSWER_S)["decision"] for task in (*before, *after))
        assert worker.stop() == 0
