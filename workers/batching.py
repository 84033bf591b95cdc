"""The Batcher decides which messages make the next batch. It never sees a clock, a thread, a broker or a text."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from tagging.names import Lane

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a message costs the device, as far as can be told before it is tokenised."""

    pairs: int
    """(text, label) pairs."""
    longest: int
    """Tokens of the longest pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """A batch closes at whichever it meets first."""

    max_messages: int
    max_tokens: int
    """Padded tokens: all pairs, each as long as the longest."""
    max_wait_s: float
    """The oldest message waits no longer for company."""
    bulk_every: int = 8
    """One batch in so many starts with bulk work, so that live traffic cannot starve it."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    item: T
    size: Size
    since: float
    alone: bool


class Batcher(Generic[T]):
    """Keeps waiting messages in lanes, first in first out within one; live before bulk.

    Not thread-safe; ``now`` is handed in, in seconds of any monotonic clock.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._lanes: dict[Lane, deque[_Waiting[T]]] = {"live": deque(), "bulk": deque()}
        self._batches = 0
        self._pairs = 0
        self._longest = 0
        self._loners = 0

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def add(self, item: T, *, size: Size, lane: Lane, now: float, alone: bool = False) -> None:
        """Let the item wait for a batch; ``alone`` if it must not share one."""
        self._lanes[lane].append(_Waiting(item, size, now, alone))
        self._pairs += size.pairs
        self._longest = max(self._longest, size.longest)
        self._loners += alone

    def is_full(self) -> bool:
        """Whether another message would not make the next batch any larger."""
        # Asked at every arrival: most times the totals alone show that all of it fits.
        fits = self._pairs * self._longest < self._limits.max_tokens and not self._loners
        if fits:
            return len(self) >= self._limits.max_messages
        taken, closed = self._choose()
        return bool(taken) and (closed or len(taken) >= self._limits.max_messages)

    def overdue_at(self) -> float:
        """When the oldest message has waited long enough; infinity when none waits."""
        oldest = min((lane[0].since for lane in self._lanes.values() if lane), default=math.inf)
        return oldest + self._limits.max_wait_s

    def take(self) -> list[T]:
        """The next batch, in order; empty when nothing waits."""
        taken, _ = self._choose()
        for lane, waiting in taken:
            self._lanes[lane].popleft()
            self._pairs -= waiting.size.pairs
            self._loners -= waiting.alone
        self._batches += bool(taken)
        if not self:
            self._longest = 0
        return [waiting.item for _, waiting in taken]

    def clear(self) -> list[T]:
        """Everything that waits, which is then forgotten."""
        items = [waiting.item for lane in self._lanes.values() for waiting in lane]
        for lane in self._lanes.values():
            lane.clear()
        self._pairs = self._longest = self._loners = 0
        return items

    def _choose(self) -> tuple[list[tuple[Lane, _Waiting[T]]], bool]:
        """The messages of the next batch, and whether one more is waiting that does not fit."""
        taken: list[tuple[Lane, _Waiting[T]]] = []
        pairs = longest = 0
        for lane, waiting in self._in_order():
            if taken and (waiting.alone or taken[0][1].alone or len(taken) == self._limits.max_messages):
                return taken, True
            pairs, longest = pairs + waiting.size.pairs, max(longest, waiting.size.longest)
            if taken and pairs * longest > self._limits.max_tokens:
                return taken, True
            taken.append((lane, waiting))
        return taken, pairs * longest >= self._limits.max_tokens or (bool(taken) and taken[0][1].alone)

    def _in_order(self) -> Iterator[tuple[Lane, _Waiting[T]]]:
        live, bulk = self._lanes["live"], self._lanes["bulk"]
        bulk_first = bool(bulk) and (self._batches + 1) % self._limits.bulk_every == 0
        if bulk_first:
            yield "bulk", bulk[0]
        for waiting in live:
            yield "live", waiting
        for waiting in islice(bulk, int(bulk_first), None):
            yield "bulk", waiting
