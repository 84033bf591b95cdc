"""Whose turn it is on the device, and how much bulk work makes a turn.

A live batch has the device until it is done. A bulk batch is computed a turn at a time and steps aside between two of
them, so a ticket that comes waits for the rest of a turn and not for the rest of a batch. ADR-0024.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tagging.names import Lane

_FEWEST_TOKENS: Final = 512
"""Of a turn: about what a ticket asks for. What a call costs whatever is in it would eat a shorter one."""
_STEP: Final = 2.0
"""A turn is at most so many times as long as the one before, and at least the same part of it."""


class Device:
    """One batch at a time has it; live ones before bulk. Safe to share between threads.

    Args:
        bulk_every: Where both wait, one turn in so many is bulk's, so that live traffic cannot starve it.
    """

    def __init__(self, *, bulk_every: int) -> None:
        self._bulk_every = bulk_every
        self._changed = threading.Condition()
        self._taken = False
        self._waiting: Counter[Lane] = Counter()
        self._passed_over = 0

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        with self._changed:
            return self._waiting.total()

    def take(self, lane: Lane) -> None:
        """Wait until it is this lane's turn; the caller then has the device."""
        with self._changed:
            self._waiting[lane] += 1
            self._changed.wait_for(lambda: not self._taken and self._next() == lane)
            self._waiting[lane] -= 1
            self._taken = True
            self._passed_over = self._passed_over + 1 if lane == "live" and self._waiting["bulk"] else 0

    def give_back(self) -> None:
        """Let the next one have it."""
        with self._changed:
            self._taken = False
            self._changed.notify_all()

    def step_aside(self) -> None:
        """Between two turns of a bulk batch, which has the device before and afterwards: let live ones go first."""
        with self._changed:
            is_wanted = self._waiting["live"] > 0
        if is_wanted:
            self.give_back()
            self.take("bulk")

    def _next(self) -> Lane:
        if not self._waiting["live"] or not self._waiting["bulk"]:
            return "live" if self._waiting["live"] else "bulk"
        return "bulk" if self._passed_over >= self._bulk_every - 1 else "live"


class Stride:
    """How many tokens make a turn of about so many seconds, learned from the turns before. Of one thread at a time.

    Tokens are whatever the caller takes for them, as long as it is the same in ``cut`` and ``learn``.
    """

    def __init__(self, *, turn_s: float) -> None:
        self._turn_s = turn_s
        self.tokens = float(_FEWEST_TOKENS)

    def cut(self, tokens: Sequence[int]) -> int:
        """How many of the texts with so many tokens each make the next turn: those that fit, and at least one."""
        total = 0
        for number, more in enumerate(tokens):
            total += more
            if number and total > self.tokens:
                return number
        return len(tokens)

    def learn(self, tokens: int, seconds: float) -> None:
        """A turn of so many tokens took the device so long.

        One that is much shorter than it might have been says nothing about a whole one.
        """
        if tokens < self.tokens / _STEP:
            return
        change = self._turn_s / seconds if seconds else _STEP
        self.tokens = max(_FEWEST_TOKENS, self.tokens * min(max(change, 1 / _STEP), _STEP))
