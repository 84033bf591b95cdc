"""Every ResultCache remembers answers by digest, says which tier knew, and never fails its caller."""

import math
from collections.abc import Iterator

import pytest
import redis

from tagging.digests import label_set_digest, text_digest
from tests.answers import LABELS, TEXT
from tests.servers import RedisServer
from workers.ports import CacheKey, Logit, ResultCache
from workers.stores.local_cache import LocalResultCache
from workers.stores.memory import MemoryResultCache
from workers.stores.redis_cache import RedisResultCache
from workers.stores.tiered_cache import TieredResultCache

# On a busy machine 50 ms pass without anything being wrong; that limit has a test of its own.
PATIENT_MS = 10_000


def patient(server: RedisServer) -> RedisResultCache:
    return RedisResultCache.connect(
        server.url, ttl_s=60, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS, prefix="tagmill:result"
    )


@pytest.fixture
def shared(cache_server: RedisServer) -> Iterator[RedisResultCache]:
    cache = patient(cache_server)
    yield cache
    cache.close()


@pytest.fixture(params=["memory", "local", "redis", "tiered"])
def cache(request: pytest.FixtureRequest) -> ResultCache:
    if request.param == "memory":
        return MemoryResultCache()
    local = LocalResultCache(max_entries=1000, ttl_s=60)
    if request.param == "local":
        return local
    shared: RedisResultCache = request.getfixturevalue("shared")
    return shared if request.param == "redis" else TieredResultCache(local, shared)


def key(text: str = TEXT, *, model: str = "demo-1/float32", labels: tuple[str, ...] = LABELS) -> CacheKey:
    return CacheKey(model=model, labels=label_set_digest(labels), text=text_digest(text))


LOGITS = (Logit(2.5, -1.25), Logit(-0.5, 3.0))


def test_knows_nothing_at_first(cache):
    assert cache.get_many([key("a"), key("b")]) == [None, None]


def test_knows_what_was_put(cache):
    cache.put_many({key(): LOGITS})
    [hit] = cache.get_many([key()])
    assert tuple(hit.logits) == LOGITS


def test_answers_in_the_order_of_the_keys(cache):
    cache.put_many({key(str(i)): [Logit(i, -i)] for i in range(50)})
    asked = [7, 99, 3, 49, 7]
    hits = cache.get_many([key(str(i)) for i in asked])
    assert [hit and hit.logits[0].entailment for hit in hits] == [7, None, 3, 49, 7]


@pytest.mark.parametrize("other", [key("other"), key(model="demo-2/float32"), key(labels=("canary-other",))])
def test_another_text_model_or_label_set_is_another_answer(cache, other):
    cache.put_many({key(): LOGITS})
    assert cache.get_many([other]) == [None]


def test_a_later_answer_replaces_an_earlier_one(cache):
    cache.put_many({key(): LOGITS})
    cache.put_many({key(): LOGITS[:1]})
    [hit] = cache.get_many([key()])
    assert tuple(hit.logits) == LOGITS[:1]


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_never_keeps_what_is_not_finite_but_the_rest_of_the_write(cache, x):
    cache.put_many({key("bad"): [LOGITS[0], Logit(x, 0.0)], key("good"): LOGITS})
    assert [hit is not None for hit in cache.get_many([key("bad"), key("good")])] == [False, True]


def test_empty_reads_and_writes_are_fine(cache):
    cache.put_many({})
    assert cache.get_many([]) == []


def test_says_which_tier_knew(shared):
    local = LocalResultCache(max_entries=10, ttl_s=60)
    cache = TieredResultCache(local, shared)
    shared.put_many({key("from another worker"): LOGITS})
    local.put_many({key("mine"): LOGITS})
    keys = [key("mine"), key("nobody's"), key("from another worker")]
    assert [hit and hit.tier for hit in cache.get_many(keys)] == ["local", None, "shared"]
    assert [hit and hit.tier for hit in cache.get_many(keys)] == ["local", None, "local"]


def test_two_workers_share_what_either_put(shared, cache_server):
    other = patient(cache_server)
    other.put_many({key(): LOGITS})
    [hit] = shared.get_many([key()])
    assert tuple(hit.logits) == LOGITS
    other.close()


@pytest.mark.parametrize("junk", [b"", b"\x01", b"\x01abc", b"\x09" + b"\0" * 8, b"\x80\x04junk"])
def test_a_value_that_something_else_wrote_is_a_miss(shared, cache_server, junk):
    shared.put_many({key(): LOGITS})
    with redis.Redis.from_url(cache_server.url) as client:
        [name] = client.keys()
        client.set(name, junk, ex=60)
    assert shared.get_many([key()]) == [None]


def test_a_key_of_another_type_is_a_miss(shared, cache_server):
    shared.put_many({key(): LOGITS})
    with redis.Redis.from_url(cache_server.url) as client:
        [name] = client.keys()
        client.delete(name)
        client.rpush(name, "x")
        client.expire(name, 60)
    assert shared.get_many([key()]) == [None]


def test_forgets_after_the_time_to_live(shared, cache_server):
    shared.put_many({key(): LOGITS})
    with redis.Redis.from_url(cache_server.url) as client:
        [name] = client.keys()
        assert 0 < client.ttl(name) <= 60


def test_a_redis_that_is_gone_is_a_miss_and_comes_back(cache_server):
    cache = patient(cache_server)
    unhurried = RedisResultCache(cache._client, ttl_s=60, pause_s=0)  # asks again at once
    unhurried.put_many({key(): LOGITS})
    cache_server.kill()
    assert unhurried.get_many([key()]) == [None]
    unhurried.put_many({key(): LOGITS})
    assert unhurried.failures == 2
    cache_server.start()
    unhurried.put_many({key(): LOGITS})
    [hit] = unhurried.get_many([key()])
    assert tuple(hit.logits) == LOGITS
    cache.close()


def test_a_redis_that_is_silent_is_a_miss(cache_server):
    cache = RedisResultCache.connect(cache_server.url, ttl_s=60, timeout_ms=50)
    cache_server.pause()
    try:
        assert cache.get_many([key()]) == [None]
        assert cache.failures == 1
    finally:
        cache_server.resume()
        cache.close()


def test_with_its_redis_gone_the_tiers_still_serve_what_the_local_one_knows(cache_server):
    shared = patient(cache_server)
    cache = TieredResultCache(LocalResultCache(max_entries=10, ttl_s=60), shared)
    cache_server.kill()
    cache.put_many({key(): LOGITS})
    assert [hit and hit.tier for hit in cache.get_many([key(), key("b")])] == ["local", None]
    shared.close()
