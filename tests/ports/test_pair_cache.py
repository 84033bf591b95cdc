"""Every PairCache remembers logits by digest of text and hypothesis, and never fails its caller."""

import math
from collections.abc import Iterator

import pytest
import redis

from tagging.digests import hypothesis_digests, text_digest
from tests.answers import LABELS, TEXT
from tests.servers import RedisServer
from workers.ports import Logit, PairCache, SharedPairCache, TextKey
from workers.stores.local_pairs import LocalPairCache
from workers.stores.logits import RECORD_BYTES
from workers.stores.memory import MemoryMeter, MemoryPairCache
from workers.stores.redis_pairs import MAX_TEXT_BYTES, RedisPairCache

# On a busy machine 50 ms pass without anything being wrong; that limit has a test of its own.
PATIENT_MS = 10_000


def patient(server: RedisServer) -> RedisPairCache:
    return RedisPairCache.connect(
        server.url, ttl_s=60, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS, meter=MemoryMeter()
    )


@pytest.fixture
def in_redis(cache_server: RedisServer) -> Iterator[RedisPairCache]:
    cache = patient(cache_server)
    yield cache
    cache.close()


@pytest.fixture(params=["memory", "local", "redis"])
def cache(request: pytest.FixtureRequest) -> PairCache:
    if request.param == "memory":
        return MemoryPairCache()
    if request.param == "local":
        return LocalPairCache(max_entries=1000, ttl_s=60)
    return request.getfixturevalue("in_redis")


@pytest.fixture(params=["memory", "redis"])
def shared(request: pytest.FixtureRequest) -> SharedPairCache:
    return MemoryPairCache() if request.param == "memory" else request.getfixturevalue("in_redis")


def key(text: str = TEXT, *, model: str = "demo-1.float32") -> TextKey:
    return TextKey(model=model, text=text_digest(text))


A, B, C = hypothesis_digests((*LABELS, "canary-refund"))
FOR_A, FOR_B, FOR_C = Logit(2.5, -1.25), Logit(-0.5, 3.0), Logit(0.0, 1.0)
ME, YOU = "worker-1", "worker-2"


def claim(cache: SharedPairCache, wanted: dict[TextKey, list[bytes]], *, claimant: str, lifetime_ms: int = 60_000):
    known, promised = cache.claim_many(wanted, claimant=claimant, lifetime_ms=lifetime_ms)
    return known, {k: set(digests) for k, digests in promised.items()}


def test_knows_nothing_at_first(cache):
    assert cache.get_many({key("a"): [A], key("b"): [A, B]}) == {}


def test_knows_what_was_put(cache):
    cache.put_many({key(): {A: FOR_A, B: FOR_B}})
    assert cache.get_many({key(): [A, B]}) == {key(): {A: FOR_A, B: FOR_B}}


def test_tells_no_more_than_was_asked_and_no_less_than_is_known(cache):
    cache.put_many({key(): {A: FOR_A, B: FOR_B}})
    assert cache.get_many({key(): [B, C]}) == {key(): {B: FOR_B}}
    assert cache.get_many({key(): [C]}) == {}


def test_adds_to_what_is_known_of_a_text(cache):
    cache.put_many({key(): {A: FOR_A}})
    cache.put_many({key(): {B: FOR_B}, key("other"): {C: FOR_C}})
    assert cache.get_many({key(): [A, B, C]}) == {key(): {A: FOR_A, B: FOR_B}}


def test_tells_many_texts_apart(cache):
    cache.put_many({key(str(i)): {A: Logit(i, -i)} for i in range(50)})
    known = cache.get_many({key(str(i)): [A] for i in (7, 99, 3, 49)})
    assert known == {key(str(i)): {A: Logit(i, -i)} for i in (7, 3, 49)}


@pytest.mark.parametrize("other", [key("other"), key(model="demo-2.float32"), key(model="demo-1.int8")])
def test_another_text_model_or_precision_is_another_pair(cache, other):
    cache.put_many({key(): {A: FOR_A}})
    assert cache.get_many({other: [A]}) == {}


def test_what_is_put_later_counts(cache):
    cache.put_many({key(): {A: FOR_A, B: FOR_B}})
    cache.put_many({key(): {A: FOR_C}})
    assert cache.get_many({key(): [A, B]}) == {key(): {A: FOR_C, B: FOR_B}}


def test_knows_nothing_of_what_it_was_told_to_forget(cache):
    cache.put_many({key(): {A: FOR_A, B: FOR_B}, key("other"): {A: FOR_A}})
    cache.forget({key(), key("never asked")})
    assert cache.get_many({key(): [A, B], key("other"): [A]}) == {key("other"): {A: FOR_A}}
    cache.put_many({key(): {B: FOR_C}})
    assert cache.get_many({key(): [A, B]}) == {key(): {B: FOR_C}}


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_never_keeps_what_is_not_finite_but_the_rest_of_the_write(cache, x):
    cache.put_many({key(): {A: Logit(0.5, x), B: FOR_B}, key("bad"): {A: Logit(x, 0.5)}, key("good"): {A: FOR_A}})
    known = cache.get_many({key(): [A, B], key("bad"): [A], key("good"): [A]})
    assert known == {key(): {B: FOR_B}, key("good"): {A: FOR_A}}


def test_empty_reads_and_writes_are_fine(cache):
    cache.put_many({})
    cache.put_many({key(): {}})
    assert cache.get_many({}) == {}
    assert cache.get_many({key(): []}) == {}
    cache.forget(())


def test_the_first_to_ask_is_to_compute_and_the_others_are_told_so(shared):
    assert claim(shared, {key(): [A, B]}, claimant=ME) == ({}, {})
    assert claim(shared, {key(): [B, C]}, claimant=YOU) == ({}, {key(): {B}})
    assert claim(shared, {key(): [A, B, C]}, claimant="worker-3") == ({}, {key(): {A, B, C}})


def test_a_worker_is_not_told_of_its_own_promises(shared):
    claim(shared, {key(): [A]}, claimant=ME)
    assert claim(shared, {key(): [A, B]}, claimant=ME) == ({}, {})


def test_what_is_known_is_not_claimed(shared):
    shared.put_many({key(): {A: FOR_A}})
    assert claim(shared, {key(): [A, B]}, claimant=ME) == ({key(): {A: FOR_A}}, {})
    assert claim(shared, {key(): [A, B]}, claimant=YOU) == ({key(): {A: FOR_A}}, {key(): {B}})


def test_a_promise_that_was_kept_is_no_longer_one(shared):
    claim(shared, {key(): [A]}, claimant=ME)
    shared.put_many({key(): {A: FOR_A}})
    assert claim(shared, {key(): [A]}, claimant=YOU) == ({key(): {A: FOR_A}}, {})


def test_claims_of_many_texts_are_told_apart(shared):
    claim(shared, {key(str(i)): [A] for i in range(0, 20, 2)}, claimant=ME)
    _, promised = claim(shared, {key(str(i)): [A, B] for i in range(20)}, claimant=YOU)
    assert promised == {key(str(i)): {A} for i in range(0, 20, 2)}


def test_claiming_nothing_is_fine(shared):
    assert claim(shared, {}, claimant=ME) == ({}, {})


def test_claims_expire_with_their_first(in_redis, cache_server):
    claim(in_redis, {key(): [A]}, claimant=ME, lifetime_ms=60_000)
    claim(in_redis, {key(): [B]}, claimant=YOU, lifetime_ms=600_000)
    with redis.Redis.from_url(cache_server.url) as client:
        [name] = client.keys()
        assert 0 < client.pttl(name) <= 60_000


def test_two_workers_share_what_either_put(in_redis, cache_server):
    other = patient(cache_server)
    other.put_many({key(): {A: FOR_A}})
    assert in_redis.get_many({key(): [A]}) == {key(): {A: FOR_A}}
    other.close()


def test_a_text_lives_on_when_it_is_written_again(in_redis, cache_server):
    in_redis.put_many({key(): {A: FOR_A}})
    with redis.Redis.from_url(cache_server.url) as client:
        [name] = client.keys()
        client.expire(name, 5)
        in_redis.put_many({key(): {B: FOR_B}})
        assert 5 < client.ttl(name) <= 60


def test_a_text_that_is_asked_too_much_starts_anew(in_redis, cache_server):
    many = hypothesis_digests(tuple(map(str, range(MAX_TEXT_BYTES // RECORD_BYTES))))
    in_redis.put_many({key(): dict.fromkeys(many, FOR_A)})
    in_redis.put_many({key(): {A: FOR_A}})
    assert in_redis.get_many({key(): [A, next(iter(many))]}) == {key(): {A: FOR_A}}


@pytest.mark.parametrize("junk", [b"\x01", b"\x01abc", b"\x80\x04junk", b"\0" * (RECORD_BYTES + 1)])
def test_a_value_that_something_else_wrote_is_unknown_and_written_over(in_redis, cache_server, junk):
    in_redis.put_many({key(): {A: FOR_A}})
    with redis.Redis.from_url(cache_server.url) as client:
        [name] = client.keys()
        client.set(name, junk, ex=60)
    assert in_redis.get_many({key(): [A]}) == {}
    assert claim(in_redis, {key(): [A]}, claimant=ME) == ({}, {})
    in_redis.put_many({key(): {B: FOR_B}})
    assert in_redis.get_many({key(): [A, B]}) == {key(): {B: FOR_B}}


def test_keys_of_another_type_are_unknown_and_written_over(in_redis, cache_server):
    in_redis.put_many({key(): {A: FOR_A}})
    claim(in_redis, {key(): [B]}, claimant=YOU)
    with redis.Redis.from_url(cache_server.url) as client:
        for name in list(client.scan_iter()):
            client.delete(name)
            client.rpush(name, "x")
            client.expire(name, 60)
    assert in_redis.get_many({key(): [A]}) == {}
    assert claim(in_redis, {key(): [A, B]}, claimant=ME) == ({}, {})
    in_redis.put_many({key(): {A: FOR_A}})
    assert in_redis.get_many({key(): [A]}) == {key(): {A: FOR_A}}
    assert in_redis.failures == 0


def test_a_redis_that_is_full_still_tells_what_it_knows(in_redis, cache_server):
    in_redis.put_many({key(): {A: FOR_A}})
    with redis.Redis.from_url(cache_server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            for claimant in (ME, YOU):
                assert claim(in_redis, {key(): [A, B]}, claimant=claimant) == ({key(): {A: FOR_A}}, {})
            assert in_redis.failures == 0
            in_redis.put_many({key(): {B: FOR_B}})
            assert in_redis.failures == 1
        finally:
            client.config_set("maxmemory", 0)


def test_a_batch_costs_one_command_to_read_and_one_to_write(in_redis, cache_server):
    texts = {key(str(i)): [A, B] for i in range(64)}
    with redis.Redis.from_url(cache_server.url) as client:
        claim(in_redis, texts, claimant=ME)  # both scripts are in the server from here on
        in_redis.put_many({k: {A: FOR_A} for k in texts})
        client.config_resetstat()
        claim(in_redis, texts, claimant=ME)
        in_redis.put_many({k: {B: FOR_B} for k in texts})
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


def test_a_redis_that_is_gone_knows_and_promises_nothing_and_comes_back(cache_server):
    cache = patient(cache_server)
    unhurried = RedisPairCache(cache._client, ttl_s=60, pause_s=0, meter=MemoryMeter())  # asks again at once
    unhurried.put_many({key(): {A: FOR_A}})
    cache_server.kill()
    assert unhurried.get_many({key(): [A]}) == {}
    assert claim(unhurried, {key(): [A]}, claimant=ME) == ({}, {})
    unhurried.put_many({key(): {A: FOR_A}})
    assert (unhurried.failures, unhurried.is_up) == (3, False)
    cache_server.start()
    unhurried.put_many({key(): {A: FOR_A}})
    assert unhurried.get_many({key(): [A]}) == {key(): {A: FOR_A}}
    assert unhurried.is_up
    cache.close()


def test_a_redis_that_is_silent_knows_nothing(cache_server):
    cache = RedisPairCache.connect(cache_server.url, ttl_s=60, timeout_ms=50, meter=MemoryMeter())
    cache_server.pause()
    try:
        assert cache.get_many({key(): [A]}) == {}
        assert cache.failures == 1
    finally:
        cache_server.resume()
        cache.close()
