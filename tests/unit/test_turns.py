"""A live batch gets the device before a bulk one, which steps aside between two turns, and neither starves."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tagging.names import Lane
from tests.servers import wait_until
from workers.turns import Device, Stride


class Takers:
    """Threads that want the device; each notes when it has it, and gives it back when it is told to."""

    def __init__(self, device: Device) -> None:
        self.served: list[str] = []
        self._device = device
        self._threads: list[threading.Thread] = []
        self._done = threading.Event()

    def add(self, lane: Lane, name: str) -> None:
        """One more, which waits once this returns."""
        before = self._device.waiting
        thread = threading.Thread(target=self._take, args=(lane, name))
        thread.start()
        self._threads.append(thread)
        wait_until(f"{name} waits", lambda: self._device.waiting == before + 1)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "it still waits"

    def _take(self, lane: Lane, name: str) -> None:
        self._device.take(lane)
        self.served.append(name)
        self._device.give_back()


@contextmanager
def held(device: Device, lane: Lane = "live") -> Iterator[Takers]:
    """Somebody has the device for as long as the block lasts; afterwards everybody was served."""
    device.take(lane)
    takers = Takers(device)
    yield takers
    device.give_back()
    takers.join()


def test_live_comes_before_bulk_that_waited_longer() -> None:
    with held(Device(bulk_every=8)) as takers:
        takers.add("bulk", "bulk")
        takers.add("live", "live")
    assert takers.served == ["live", "bulk"]


def test_one_turn_in_so_many_is_for_bulk() -> None:
    with held(Device(bulk_every=3)) as takers:
        takers.add("bulk", "bulk")
        for _ in range(4):
            takers.add("live", "live")
    assert takers.served == ["live", "live", "bulk", "live", "live"]


def test_bulk_steps_aside_for_a_live_batch_that_waits_and_has_the_device_again() -> None:
    device = Device(bulk_every=8)
    with held(device, "bulk") as takers:
        takers.add("live", "live")
        device.step_aside()
        assert takers.served == ["live"]
        takers.add("bulk", "next bulk")
        assert takers.served == ["live"], "two had the device"
    assert takers.served == ["live", "next bulk"]


def test_bulk_does_not_step_aside_for_bulk() -> None:
    device = Device(bulk_every=8)
    with held(device, "bulk") as takers:
        takers.add("bulk", "next bulk")
        device.step_aside()
        assert takers.served == []


def test_a_turn_holds_the_texts_that_fit_and_at_least_one() -> None:
    stride = Stride(turn_s=1.0)
    assert stride.tokens == 512
    assert stride.cut([500, 12, 1]) == 2
    assert stride.cut([9000, 1]) == 1
    assert stride.cut([1, 1, 1]) == 3


@pytest.mark.parametrize(("tokens_a_s", "fits"), [(1e4, 10_000), (1e6, 1_000_000), (1.0, 512)])
def test_turns_come_to_last_as_long_as_they_should_or_hold_what_a_ticket_does(tokens_a_s: float, fits: int) -> None:
    stride = Stride(turn_s=1.0)
    for _ in range(30):
        tokens = round(stride.tokens)
        stride.learn(tokens, tokens / tokens_a_s)
    assert stride.tokens == pytest.approx(fits, rel=0.01)


def test_a_device_that_takes_no_time_is_given_ever_more() -> None:
    stride = Stride(turn_s=1.0)
    stride.learn(512, 0.0)
    assert stride.tokens == 1024


def test_what_a_short_turn_costs_says_nothing_about_a_long_one() -> None:
    stride = Stride(turn_s=1.0)
    stride.learn(512, 0.1)
    stride.learn(20, 0.9)
    assert stride.tokens == 1024
