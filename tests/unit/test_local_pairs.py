"""A LocalPairCache is bounded in pairs and in time."""

from workers.ports import Logit, TextKey
from workers.stores.local_pairs import LocalPairCache


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def key(name: str) -> TextKey:
    return TextKey(model="m", text=name)


def pairs(texts: str, *, hypotheses: str = "x") -> dict[TextKey, dict[bytes, Logit]]:
    return {key(text): {h.encode(): Logit(1.0, -1.0) for h in hypotheses} for text in texts}


def known(cache: LocalPairCache, texts: str) -> str:
    """The texts whose pair with the hypothesis x is known."""
    return "".join(found.text for found in cache.get_many({key(text): [b"x"] for text in texts}))


def test_forgets_the_text_that_was_not_asked_for_the_longest():
    cache = LocalPairCache(max_entries=3, ttl_s=60)
    cache.put_many(pairs("abc"))
    known(cache, "a")
    cache.put_many(pairs("d"))
    assert known(cache, "abcd") == "acd"


def test_writing_again_counts_as_use():
    cache = LocalPairCache(max_entries=2, ttl_s=60)
    cache.put_many(pairs("ab"))
    cache.put_many(pairs("a"))
    cache.put_many(pairs("c"))
    assert known(cache, "abc") == "ac"


def test_forgets_a_text_after_its_time_to_live():
    clock = Clock()
    cache = LocalPairCache(max_entries=3, ttl_s=60, clock=clock)
    cache.put_many(pairs("a"))
    clock.now += 59
    assert known(cache, "a") == "a"
    clock.now += 1
    assert known(cache, "a") == ""
    assert len(cache) == 0


def test_writing_again_does_not_bring_back_what_had_expired():
    clock = Clock()
    cache = LocalPairCache(max_entries=3, ttl_s=60, clock=clock)
    cache.put_many(pairs("a", hypotheses="x"))
    clock.now += 60
    cache.put_many(pairs("a", hypotheses="y"))
    assert known(cache, "a") == ""
    assert len(cache) == 1


def test_forgets_a_text_whichever_model_was_asked():
    cache = LocalPairCache(max_entries=9, ttl_s=60)
    cache.put_many(pairs("ab", hypotheses="xy"))
    cache.put_many({TextKey(model="other", text="a"): {b"x": Logit(1.0, -1.0)}})
    assert cache.forget_texts(["a", "never asked"]) == 1
    assert (known(cache, "ab"), len(cache)) == ("b", 2)


def test_counts_every_pair_of_a_text():
    cache = LocalPairCache(max_entries=4, ttl_s=60)
    cache.put_many(pairs("a", hypotheses="xyz"))
    cache.put_many(pairs("a", hypotheses="xy"))
    assert len(cache) == 3
    cache.put_many(pairs("b", hypotheses="xy"))
    assert (known(cache, "ab"), len(cache)) == ("b", 2)


def test_never_holds_more_than_its_limit():
    cache = LocalPairCache(max_entries=2, ttl_s=60)
    cache.put_many(pairs("abcdefgh"))
    assert len(cache) == 2


def test_with_no_room_it_keeps_nothing():
    cache = LocalPairCache(max_entries=0, ttl_s=60)
    cache.put_many(pairs("a"))
    assert known(cache, "a") == ""
