"""What a relay ought to do, decided from what it has seen: values only, no broker and no database."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ledger.intake import Backlog, Due


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """Claimed messages, by what is to be done with them."""

    publish: tuple[Due, ...]
    give_up: tuple[Due, ...]


def sort_out(due: Iterable[Due], *, max_publishes: int) -> Sorted:
    """Those to be published, and those that were published so often that one more would not help."""
    rows = tuple(due)
    return Sorted(
        publish=tuple(one for one in rows if one.publishes < max_publishes),
        give_up=tuple(one for one in rows if one.publishes >= max_publishes),
    )


def sweep_quotas(backlogs: Sequence[Backlog], waiting: Mapping[str, int], *, most: int) -> dict[str, int]:
    """How many overdue messages of each queue to publish again, ``most`` in all, live queues first.

    A queue is first in, first out: while it holds as many messages as are unfinished, they only wait, however long ago
    they were published. Only what is missing from it can be lost.

    Args:
        backlogs: What is published and not finished.
        waiting: How many messages each queue holds; what senders published past the intake counts as well.
        most: Published again in one sweep.
    """
    quotas: dict[str, int] = {}
    for backlog in backlogs:
        missing = backlog.published - waiting.get(backlog.queue, 0)
        if quota := max(0, min(backlog.overdue, missing, most - sum(quotas.values()))):
            quotas[backlog.queue] = quota
    return quotas


def pause_s(failures: int, *, first_s: float, longest_s: float, share: float) -> float:
    """How long to wait after so many failures in a row: it doubles; ``share`` (0 to 1) spreads it over its upper half.

    Relays that lost the same broker at the same moment must not come back to it at the same moment.
    """
    full = min(longest_s, first_s * 2.0 ** min(failures - 1, 30))
    return full * (0.5 + share / 2)
