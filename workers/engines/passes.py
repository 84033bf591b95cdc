"""How many pairs go through the model at once: sorted by length, cut where they would exceed the token budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class PassSize(NamedTuple):
    """The measures of one pass."""

    pairs: int
    longest: int  # tokens
    tokens: int  # of all its pairs, without padding


def padded(size: PassSize) -> int:
    """Tokens that a pass computes whose rows are padded to its longest."""
    return size.pairs * size.longest


def packed(size: PassSize) -> int:
    """Tokens that a pass computes without padding."""
    return size.tokens


def plan(lengths: Sequence[int], *, max_tokens: int, cost: Callable[[PassSize], int] = padded) -> list[list[int]]:
    """Passes over the pairs with these lengths, each a list of indices, longest pairs first.

    The cost of a pass stays within `max_tokens`; a pair that exceeds it by itself gets a pass of its own.
    """
    passes: list[list[int]] = []
    size = PassSize(0, 0, 0)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        grown = PassSize(size.pairs + 1, size.longest or lengths[index], size.tokens + lengths[index])
        if not passes or cost(grown) > max_tokens:
            passes.append([])
            grown = PassSize(1, lengths[index], lengths[index])
        passes[-1].append(index)
        size = grown
    return passes


def size_of(lengths: Sequence[int]) -> PassSize:
    """The size of one pass over all pairs with these lengths."""
    return PassSize(len(lengths), max(lengths), sum(lengths))


def halves(rows: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """The two halves of a pass that did not fit; the first holds the longer pairs."""
    middle = (len(rows) + 1) // 2
    return list(rows[:middle]), list(rows[middle:])


class TokenBudget:
    """Tokens a pass may have: falls to half of what did not fit, and creeps back while passes succeed."""

    RECOVERY = 64  # calls from nothing back to the limit

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens = limit

    def shrink(self, failed: int) -> None:
        self.tokens = max(1, min(self.tokens, failed // 2))

    def recover(self) -> None:
        self.tokens = min(self.limit, self.tokens + max(1, self.limit // self.RECOVERY))
