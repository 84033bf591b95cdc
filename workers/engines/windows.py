"""Texts that are longer than the model's window: where the windows begin, and one answer out of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tagging.long_text import Rule


def starts(tokens: int, *, room: int, overlap: int) -> list[int]:
    """Where windows of `room` tokens begin that cover `tokens` of them, neighbours sharing at least `overlap`.

    The last window ends with the text, so that all are full. The overlap is cut to half a window.
    """
    step = max(1, room - min(overlap, room // 2))
    last = max(0, tokens - room)
    return [*range(0, last, step), last]


def aggregate(windows: Sequence[Sequence[float]], rule: Rule) -> Sequence[float]:
    """Entailment and contradiction of a text out of those of its windows.

    Args:
        rule: max takes both logits of the window with the largest margin between them, anything else the mean of each.

    Returns:
        Two logits, not finite where any window's are not: a window that failed is not passed over.
    """
    if len(windows) == 1:
        return windows[0]
    for window in windows:
        if not all(map(math.isfinite, window)):
            return window
    if rule == "max":
        return max(windows, key=lambda window: window[0] - window[1])
    return [math.fsum(column) / len(windows) for column in zip(*windows, strict=True)]
