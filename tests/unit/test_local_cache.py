"""A LocalResultCache is bounded in entries and in time."""

from workers.ports import CacheKey, Logit
from workers.stores.local_cache import LocalResultCache


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def key(name: str) -> CacheKey:
    return CacheKey(model="m", labels="l", text=name)


def entries(names: str) -> dict[CacheKey, list[Logit]]:
    return {key(name): [Logit(1.0, -1.0)] for name in names}


def known(cache: LocalResultCache, names: str) -> str:
    keys = [key(name) for name in names]
    return "".join(k.text for k, hit in zip(keys, cache.get_many(keys), strict=True) if hit)


def test_forgets_what_was_not_asked_for_the_longest():
    cache = LocalResultCache(max_entries=3, ttl_s=60)
    cache.put_many(entries("abc"))
    known(cache, "a")
    cache.put_many(entries("d"))
    assert known(cache, "abcd") == "acd"


def test_writing_again_counts_as_use():
    cache = LocalResultCache(max_entries=2, ttl_s=60)
    cache.put_many(entries("ab"))
    cache.put_many(entries("a"))
    cache.put_many(entries("c"))
    assert known(cache, "abc") == "ac"


def test_forgets_after_its_time_to_live():
    clock = Clock()
    cache = LocalResultCache(max_entries=3, ttl_s=60, clock=clock)
    cache.put_many(entries("a"))
    clock.now += 59
    assert known(cache, "a") == "a"
    clock.now += 1
    assert known(cache, "a") == ""
    assert len(cache) == 0


def test_never_holds_more_than_its_limit():
    cache = LocalResultCache(max_entries=2, ttl_s=60)
    cache.put_many(entries("abcdefgh"))
    assert len(cache) == 2


def test_with_no_room_it_keeps_nothing():
    cache = LocalResultCache(max_entries=0, ttl_s=60)
    cache.put_many(entries("a"))
    assert known(cache, "a") == ""
