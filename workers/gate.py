"""The Gate lets threads wait for what the Batcher decides."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from workers.batching import Batcher, BatchLimits, Size

T = TypeVar("T")


class Gate(Generic[T]):
    """Where the requests of a lane wait for a batch, and batches for the device. Thread-safe around a ``Batcher``."""

    def __init__(self, limits: BatchLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._batcher: Batcher[T] = Batcher(limits)
        self._clock = clock
        self._changed = threading.Condition()
        self._busy = False
        self._hurried = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._batcher)

    def put(self, item: T, *, size: Size, now: float, alone: bool = False) -> None:
        """Let the item wait; see ``Batcher.add``."""
        with self._changed:
            was_empty = not self._batcher
            self._batcher.add(item, size=size, now=now, alone=alone)
            if was_empty or self._batcher.is_full():
                self._changed.notify_all()

    def take(self) -> list[T] | None:
        """Wait for the next batch; ``None`` once the gate is closed.

        While a batch of this lane is on the device only a full one leaves: a smaller one has time to grow.
        """
        with self._changed:
            while not self._closed:
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    return self._batcher.take()
                self._changed.wait(wait_s)
            return None

    def device_busy(self, busy: bool) -> None:
        """Say whether a batch of this lane is on the device."""
        with self._changed:
            self._busy = busy
            self._changed.notify_all()

    def hurry(self) -> None:
        """From now on nothing waits for company."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def clear(self) -> int:
        """Forget what waits; the broker will deliver it again."""
        with self._changed:
            return len(self._batcher.clear())

    def close(self) -> None:
        """Let every waiting thread go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_s(self) -> float | None:
        """Seconds until the next batch leaves, if nothing else happens; ``None`` for as long as it takes."""
        if not self._batcher:
            return None
        if self._hurried or self._batcher.is_full():
            return 0.0
        return None if self._busy else self._batcher.overdue_at() - self._clock()
