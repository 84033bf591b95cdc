"""A RedisPairCache whose Redis fails is skipped for a second, and says so once."""

from collections.abc import Callable

import pytest
import redis
from structlog.testing import capture_logs

from tagging.errors import SettingsError
from workers.metrics import CACHE_FAILURES, CACHE_SKIPS
from workers.ports import Logit, TextKey
from workers.stores.memory import MemoryMeter
from workers.stores.redis_pairs import RedisPairCache

KEY = TextKey(model="m", text="t")
WANTED = {KEY: [b"h" * 8]}
URL_WITH_SECRET = "redis://:hunter2@cache:6379"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class FlakyRedis:
    """Stands for a client whose server can be taken away."""

    def __init__(self) -> None:
        self.up = True
        self.asked = 0

    def mget(self, names: list[str]) -> list[bytes | None]:
        self.asked += 1
        if not self.up:
            raise redis.ConnectionError(f"cannot reach {URL_WITH_SECRET}")
        return [None] * len(names)

    def register_script(self, script: str) -> Callable[..., None]:
        """Scripts fail and are counted as any command."""
        return lambda keys, args: self.mget(keys) and None


def cache_on(client: FlakyRedis, clock: Clock, meter: MemoryMeter | None = None) -> RedisPairCache:
    return RedisPairCache(client, ttl_s=60, meter=meter or MemoryMeter(), clock=clock)  # type: ignore[arg-type]  # only what the test calls


def test_a_failure_is_a_miss():
    client = FlakyRedis()
    client.up = False
    assert cache_on(client, Clock()).get_many(WANTED) == {}


def test_is_left_alone_for_a_second_after_a_failure():
    client, clock, meter = FlakyRedis(), Clock(), MemoryMeter()
    cache = cache_on(client, clock, meter)
    client.up = False
    cache.get_many(WANTED)
    clock.now += 0.9
    cache.get_many(WANTED)
    cache.put_many({KEY: {b"h" * 8: Logit(1.0, -1.0)}})
    assert (client.asked, cache.failures, cache.skipped) == (1, 1, 2)
    assert (meter.total(CACHE_FAILURES), meter.total(CACHE_SKIPS)) == (1, 2)


def test_is_asked_again_after_the_pause():
    client, clock = FlakyRedis(), Clock()
    cache = cache_on(client, clock)
    client.up = False
    cache.get_many(WANTED)
    clock.now += 1.0
    cache.get_many(WANTED)
    assert (client.asked, cache.failures) == (2, 2)


def test_an_outage_is_logged_at_its_beginning_and_its_end_and_without_the_url():
    client, clock = FlakyRedis(), Clock()
    cache = cache_on(client, clock)
    with capture_logs() as logs:
        client.up = False
        for _ in range(5):
            cache.get_many(WANTED)
            clock.now += 1.0
        client.up = True
        cache.get_many(WANTED)
        cache.get_many(WANTED)
    assert [(log["event"], log["log_level"]) for log in logs] == [("cache.lost", "warning"), ("cache.back", "info")]
    assert logs[1]["lost_s"] == 5.0
    assert "hunter2" not in str(logs)


def test_nothing_to_ask_asks_nothing():
    client = FlakyRedis()
    cache = cache_on(client, Clock())
    assert cache.get_many({}) == {}
    assert cache.claim_many({}, claimant="worker-1", lifetime_ms=1) == ({}, {})
    cache.put_many({})
    cache.put_many({KEY: {b"h" * 8: Logit(float("nan"), 0.0)}})
    assert client.asked == 0


def test_a_url_that_is_none_is_refused_without_showing_it():
    with pytest.raises(SettingsError) as refused:
        RedisPairCache.connect("http://:hunter2@cache", ttl_s=60, meter=MemoryMeter())
    assert "cache.url: expected redis://" in str(refused.value)
    assert "hunter2" not in str(refused.value)
