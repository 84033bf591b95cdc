"""Recall asks memory, then Redis, then waits for what other workers promised; only the rest is for the device."""

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from workers.metrics import SINGLE_FLIGHT_SECONDS
from workers.ports import Logit, TextKey
from workers.recall import CLAIM_WAITS, Premise, Recall
from workers.stores.memory import MemoryMeter, MemoryPairCache

A, B = b"aaaaaaaa", b"bbbbbbbb"
FOR_A, FOR_B = Logit(1.0, -1.0), Logit(2.0, -2.0)
WAIT_MS = 100


class Time:
    """A clock that only pauses move; what happens during one can be ordered."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.pauses += 1
        self.meanwhile()

    def __call__(self) -> float:
        return self.now


class Worker:
    """One worker's memory beside a cache that it may share."""

    def __init__(self, shared: MemoryPairCache | None = None, *, wait_ms: int = WAIT_MS) -> None:
        self.time = Time()
        self.local = MemoryPairCache()
        self.meter = MemoryMeter()
        self.recall = Recall(
            local=self.local,
            shared=shared,
            wait_ms=wait_ms,
            meter=self.meter,
            clock=self.time,
            pause=self.time.pause,
        )

    def ask(self, *digests: bytes, text: str = "t") -> Premise:
        """A text that has been looked up."""
        premise = Premise(key=key(text), text=text, hypotheses={digest: digest.decode() for digest in digests})
        self.recall.look_up([premise])
        return premise

    def compute(self, premise: Premise) -> None:
        """What a device would do with what is left for it."""
        self.recall.look_again([premise])
        digests = premise.for_device
        premise.compute(dict.fromkeys(digests, FOR_A), dict.fromkeys(digests, 1))
        self.recall.keep([premise])


class LostCache(MemoryPairCache):
    """Promises everything and is gone when it is asked again."""

    def get_many(self, wanted):
        self.is_up = False
        return {}


def key(text: str = "t") -> TextKey:
    return TextKey(model="m", text=text)


def test_memory_goes_before_what_is_shared():
    shared = MemoryPairCache()
    worker = Worker(shared)
    worker.local.put_many({key(): {A: FOR_A}})
    shared.put_many({key(): {A: FOR_B, B: FOR_B}})
    premise = worker.ask(A, B)
    assert premise.logits == {A: FOR_A, B: FOR_B}
    assert premise.sources == {A: "local", B: "shared"}


def test_what_is_shared_is_kept_in_memory():
    shared = MemoryPairCache()
    shared.put_many({key(): {A: FOR_A}})
    worker = Worker(shared)
    worker.ask(A)
    assert worker.ask(A).sources == {A: "local"}


def test_what_is_to_be_forgotten_is_forgotten_everywhere():
    shared = MemoryPairCache()
    worker = Worker(shared)
    gone, stays = worker.ask(A, text="gone"), worker.ask(A, text="stays")
    for premise in (gone, stays):
        worker.compute(premise)
    worker.recall.share([gone, stays])
    worker.recall.forget([gone])
    for cache in (worker.local, shared):
        assert cache.get_many({key("gone"): [A], key("stays"): [A]}) == {key("stays"): {A: FOR_A}}


def test_only_what_is_unknown_is_for_the_device():
    worker = Worker()
    worker.local.put_many({key(): {A: FOR_A}})
    assert worker.ask(A, B).for_device == [B]


def test_the_next_batch_finds_in_memory_what_the_one_before_computed():
    worker = Worker()
    first, second = worker.ask(A), worker.ask(A, B)
    worker.compute(first)
    worker.compute(second)
    assert second.sources == {A: "batch_before", B: "computed"}


def test_what_was_computed_is_shared_once():
    shared = MemoryPairCache()
    worker = Worker(shared)
    premise = worker.ask(A)
    worker.compute(premise)
    worker.recall.share([premise])
    assert shared.get_many({key(): [A]}) == {key(): {A: FOR_A}}
    assert not premise.unshared


def test_what_another_worker_has_promised_is_not_for_the_device():
    shared = MemoryPairCache()
    Worker(shared).ask(A)
    premise = Worker(shared).ask(A, B)
    assert (premise.for_device, premise.awaited) == ([B], [A])


def test_a_promise_that_is_kept_while_we_wait_is_taken():
    shared = MemoryPairCache()
    other, worker = Worker(shared), Worker(shared)
    theirs, ours = other.ask(A), worker.ask(A)
    worker.time.meanwhile = lambda: (other.compute(theirs), other.recall.share([theirs]))
    worker.recall.wait_for_others([ours])
    assert (ours.sources, worker.time.pauses) == ({A: "other_worker"}, 1)
    assert worker.meter.values(SINGLE_FLIGHT_SECONDS, outcome="came") == 1
    assert worker.local.get_many({key(): [A]})


def test_a_promise_that_was_kept_before_we_wait_costs_no_pause():
    shared = MemoryPairCache()
    other, worker = Worker(shared), Worker(shared)
    theirs, ours = other.ask(A), worker.ask(A)
    other.compute(theirs)
    other.recall.share([theirs])
    worker.recall.wait_for_others([ours])
    assert (ours.logits, worker.time.pauses) == ({A: FOR_A}, 0)


def test_two_workers_that_want_each_others_pairs_both_get_them():
    shared = MemoryPairCache()
    one, two = Worker(shared), Worker(shared)
    first, second = one.ask(A), two.ask(B)
    first.ask({B: "b"})
    second.ask({A: "a"})
    one.recall.look_up([first])
    two.recall.look_up([second])
    for worker, premise in ((one, first), (two, second)):
        worker.compute(premise)
        worker.recall.share([premise])
    for worker, premise in ((one, first), (two, second)):
        worker.recall.wait_for_others([premise])
    assert first.sources == {A: "computed", B: "other_worker"}
    assert second.sources == {B: "computed", A: "other_worker"}


def test_a_promise_that_is_not_kept_is_for_the_device_after_the_wait():
    shared = MemoryPairCache()
    Worker(shared).ask(A)
    worker = Worker(shared)
    premise = worker.ask(A)
    began = worker.time.now
    with capture_logs() as logs:
        worker.recall.wait_for_others([premise])
    assert worker.time.now - began == pytest.approx(WAIT_MS / 1000)
    assert premise.for_device == [A]
    assert worker.meter.total(SINGLE_FLIGHT_SECONDS, outcome="in_vain") == pytest.approx(WAIT_MS / 1000)
    assert logs == [{"event": "single_flight.in_vain", "log_level": "info", "wait_ms": WAIT_MS, "pairs": 1}]


def test_after_a_wait_in_vain_nobody_is_waited_for_until_the_claims_of_then_are_gone():
    shared = MemoryPairCache()
    dead, worker = Worker(shared), Worker(shared)
    for text in "tuv":
        dead.ask(A, text=text)
    worker.recall.wait_for_others([worker.ask(A)])
    assert worker.ask(A, text="u").for_device == [A]
    worker.time.now += CLAIM_WAITS * WAIT_MS / 1000
    assert worker.ask(A, text="v").for_device == []


def test_a_redis_that_is_lost_is_not_waited_for():
    shared = LostCache()
    shared.claim_many({key(): [A]}, claimant="another1", lifetime_ms=1)
    worker = Worker(shared)
    premise = Premise(key=key(), text="t", hypotheses={A: "a"}, promised=[A])
    with capture_logs() as logs:
        worker.recall.wait_for_others([premise])
    assert (premise.for_device, worker.time.pauses, logs) == ([A], 0, [])


def test_with_no_time_to_wait_nothing_is_claimed():
    shared = MemoryPairCache()
    Worker(shared, wait_ms=0).ask(A)
    premise = Worker(shared).ask(A)
    assert premise.for_device == [A]
