"""A pair is computed once: by overlapping label sets, by batches in a row, by workers that are asked at the same
time.

Races, round trips and caches that fail: ``tests/ports/test_single_flight.py``, ``tests/ports/test_pair_cache.py``.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tagging.digests import hypothesis_digests, text_digest
from tests.broker.sites import ANSWER_S, CANARY, LABELS, Site
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


def test_of_a_label_set_that_overlaps_only_what_is_new_is_computed(site: Site) -> None:
    text = f"asked with one label more {CANARY}"
    computed = [
        site.send(fields={"text": text, "labels": labels}).get(timeout=ANSWER_S)["computed"]
        for labels in (["a", "b"], ["a", "b", "c"], ["c", "d", "a"])
    ]
    assert computed == [2, 1, 1]


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
