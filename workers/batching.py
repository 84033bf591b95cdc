"""The Batcher decides which messages make the next batch. It never sees a clock, a thread, a broker or a text."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

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


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    item: T
    size: Size
    since: float
    alone: bool


class Batcher(Generic[T]):
    """Keeps the waiting messages of one lane, first in first out.

    Not thread-safe; ``now`` is handed in, in seconds of any monotonic clock.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: deque[_Waiting[T]] = deque()
        self._pairs = 0
        self._longest = 0
        self._loners = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T, *, size: Size, now: float, alone: bool = False) -> None:
        """Let the item wait for a batch; ``alone`` if it must not share one."""
        self._waiting.append(_Waiting(item, size, now, alone))
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
        return taken > 0 and (closed or taken >= self._limits.max_messages)

    def overdue_at(self) -> float:
        """When the oldest message has waited long enough; infinity when none waits."""
        return self._waiting[0].since + self._limits.max_wait_s if self._waiting else math.inf

    def take(self) -> list[T]:
        """The next batch, in order; empty when nothing waits."""
        n, _ = self._choose()
        taken = [self._waiting.popleft() for _ in range(n)]
        self._pairs -= sum(waiting.size.pairs for waiting in taken)
        self._loners -= sum(waiting.alone for waiting in taken)
        if not self:
            self._longest = 0
        return [waiting.item for waiting in taken]

    def clear(self) -> list[T]:
        """Everything that waits, which is then forgotten."""
        items = [waiting.item for waiting in self._waiting]
        self._waiting.clear()
        self._pairs = self._longest = self._loners = 0
        return items

    def _choose(self) -> tuple[int, bool]:
        """How many messages make the next batch, and whether one more is waiting that does not fit."""
        pairs = longest = 0
        for n, waiting in enumerate(self._waiting):
            if n and (waiting.alone or self._waiting[0].alone or n == self._limits.max_messages):
                return n, True
            pairs, longest = pairs + waiting.size.pairs, max(longest, waiting.size.longest)
            if n and pairs * longest > self._limits.max_tokens:
                return n, True
        is_alone = bool(self._waiting) and self._waiting[0].alone
        return len(self), is_alone or pairs * longest >= self._limits.max_tokens
