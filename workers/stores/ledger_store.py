"""The tag store and the dead letters of the pipeline, in the ledger."""

from collections.abc import Sequence

from ledger.dead import DeadLedger, DeadRow
from ledger.tags import TagLedger, TagRow
from workers.metrics import DEAD_LETTERS
from workers.ports import DeadLetter, Meter, Stored


class LedgerTagStore:
    """A ``TagStore`` over the ledger."""

    def __init__(self, ledger: TagLedger) -> None:
        self._ledger = ledger

    def write(self, rows: Sequence[Stored]) -> None:
        """Store the batch in one transaction.

        Raises:
            StoreUnavailable: Nothing is known to be written; the batch has to wait.
        """
        self._ledger.write([TagRow.of(stored.answer) for stored in rows])

    def close(self) -> None:
        """Close the database's connections, those of the dead letters beside it as well."""
        self._ledger.close()


class LedgerDeadLetters:
    """``DeadLetters`` over the ledger, counted."""

    def __init__(self, ledger: DeadLedger, *, meter: Meter) -> None:
        self._ledger = ledger
        self._meter = meter

    def park(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters; the same id again replaces the earlier one.

        Raises:
            StoreUnavailable: Nothing is known to be kept; the messages must not be acknowledged.
        """
        self._ledger.park([DeadRow(**letter._asdict()) for letter in letters])
        if letters:
            self._meter.add(DEAD_LETTERS, len(letters))

    def close(self) -> None:
        """Close the database's connections, those of the tags beside it as well."""
        self._ledger.close()
