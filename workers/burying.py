"""When a worker has to stop since nothing that it does succeeds: it, and not each of its messages, is the fault."""

from collections.abc import Iterable

from workers.verdicts import Dead, Tagged, Verdict


class DeadInARow:
    """Counts dead letters until something is tagged again."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self.n = 0
        """So many since the last answer."""

    def is_reached_by(self, verdicts: Iterable[Verdict]) -> bool:
        """Count these; whether there are now too many. A limit of 0 is never reached."""
        for verdict in verdicts:
            match verdict:
                case Dead():
                    self.n += 1
                case Tagged(result=result):
                    self.n = self.n + 1 if _is_all_failed(result) else 0
                case _:  # a retry may still become either, and an erased document says nothing about us
                    pass
        return 0 < self._limit <= self.n


def _is_all_failed(result: object) -> bool:
    """Whether this is the result of a `tag_many` of which every item is a dead letter."""
    return isinstance(result, dict) and result.get("done") == 0 and bool(result.get("failed"))
