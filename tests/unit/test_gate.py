"""A Gate lets a batch out when it is full, when its oldest message has waited, or when the device asks for it."""

import threading
from collections.abc import Callable

from tests.servers import wait_until
from workers.batching import BatchLimits, Size
from workers.gate import Gate

SIZE = Size(pairs=1, longest=1)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def gate(*, max_messages: int = 3, max_wait_s: float = 1.0, clock: Callable[[], float] = Clock()) -> Gate[object]:  # noqa: B008  # never set
    return Gate(BatchLimits(max_messages=max_messages, max_tokens=1000, max_wait_s=max_wait_s), clock=clock)


def put(into: Gate[object], n: int, *, now: float = 0.0) -> list[object]:
    items = [object() for _ in range(n)]
    for item in items:
        into.put(item, size=SIZE, now=now)
    return items


class Taker:
    """A thread that waits for a batch."""

    def __init__(self, waits_at: Gate[object]) -> None:
        self.taken: list[object] | None = []
        self._gate = waits_at
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        self.taken = self._gate.take()

    def result(self) -> list[object] | None:
        self._thread.join(10)
        assert not self._thread.is_alive(), "it still waits"
        return self.taken

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


def test_a_full_batch_leaves_at_once_in_order() -> None:
    full = gate()
    jobs = put(full, 4)
    assert full.take() == jobs[:3]
    assert len(full) == 1


def test_a_smaller_one_leaves_when_its_oldest_message_has_waited() -> None:
    clock = Clock()
    waiting = gate(clock=clock, max_wait_s=1.0)
    jobs = put(waiting, 2)
    clock.now = 1.0
    assert waiting.take() == jobs


def test_while_the_device_is_busy_a_smaller_one_stays_however_long_it_waited() -> None:
    clock = Clock()
    busy = gate(clock=clock)
    busy.device_busy(True)
    jobs = put(busy, 2)
    clock.now = 100.0
    taker = Taker(busy)
    assert taker.waits
    jobs += put(busy, 1)
    assert taker.result() == jobs


def test_it_leaves_once_the_device_has_room() -> None:
    clock = Clock()
    busy = gate(clock=clock)
    busy.device_busy(True)
    jobs = put(busy, 1)
    clock.now = 100.0
    taker = Taker(busy)
    busy.device_busy(False)
    assert taker.result() == jobs


def test_in_a_hurry_nothing_waits_for_company() -> None:
    hurried = gate()
    hurried.device_busy(True)
    jobs = put(hurried, 1)
    hurried.hurry()
    assert hurried.take() == jobs


def test_closing_lets_every_waiting_thread_go() -> None:
    closing = gate()
    takers = [Taker(closing) for _ in range(3)]
    closing.close()
    assert [taker.result() for taker in takers] == [None, None, None]


def test_what_is_cleared_is_gone_and_counted() -> None:
    cleared = gate()
    put(cleared, 2)
    assert (cleared.clear(), len(cleared)) == (2, 0)


def test_of_several_waiting_threads_one_takes_the_batch() -> None:
    shared = gate()
    takers = [Taker(shared) for _ in range(3)]
    jobs = put(shared, 3)
    wait_until("one has taken it", lambda: sum(not taker.waits for taker in takers) == 1)
    shared.close()
    assert sorted((taker.result() or [] for taker in takers), key=len) == [[], [], jobs]
