"""How many pairs go through the model at once: sorted by length, cut where padding would exceed the token budget."""

from __future__ import annotations

from collections.abc import Sequence


def plan(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Passes over the pairs with these lengths, each a list of indices, longest pairs first.

    A pass computes its longest length for every pair in it, and that product stays within `max_tokens`; a pair that is
    longer by itself gets a pass of its own.
    """
    passes: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not passes or (len(passes[-1]) + 1) * longest > max_tokens:
            passes.append([])
            longest = lengths[index]
        passes[-1].append(index)
    return passes


def halves(indices: Sequence[int]) -> tuple[list[int], list[int]]:
    """The two halves of a pass that did not fit; the first holds the longer pairs."""
    middle = (len(indices) + 1) // 2
    return list(indices[:middle]), list(indices[middle:])


class TokenBudget:
    """Padded tokens a pass may have: falls to half of what did not fit, and creeps back while passes succeed."""

    RECOVERY = 64  # calls from nothing back to the limit

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens = limit

    def shrink(self, failed: int) -> None:
        self.tokens = max(1, min(self.tokens, failed // 2))

    def recover(self) -> None:
        self.tokens = min(self.limit, self.tokens + max(1, self.limit // self.RECOVERY))
