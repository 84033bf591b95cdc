"""The tag store and the dead letters of the pipeline, in the ledger."""

from collections import defaultdict
from collections.abc import Sequence

from ledger.dead import DeadLedger, DeadRow
from ledger.tags import TagLedger, TagRow
from tagging.documents import Document
from workers.metrics import DEAD_LETTERS
from workers.ports import DeadLetter, KnownPairs, Logit, Meter, Sought, Stored, TextKey
from workers.stores.logits import pack_of, unpack_of


class LedgerTagStore:
    """A ``TagStore`` over the ledger."""

    def __init__(self, ledger: TagLedger) -> None:
        self._ledger = ledger

    def write(self, rows: Sequence[Stored], *, done: Sequence[str] = ()) -> frozenset[Document]:
        """Store the batch, and finish its messages in the intake, in one transaction; the erased documents in it.

        Raises:
            StoreUnavailable: Nothing is known to be written; the batch has to wait.
        """
        messages: dict[str, list[TagRow]] = {id_: [] for id_ in done}
        for stored in rows:
            logits = pack_of(stored.key, stored.logits)
            row = TagRow.of(stored.answer, logits=logits, write_back=stored.task.write_back)
            messages.setdefault(stored.task_id, []).append(row)
        return self._ledger.write(messages).erased

    def known(self, sought: Sequence[Sought]) -> KnownPairs:
        """What was kept with answers that stand: the pairs of the same documents, texts and model, in one read.

        Raises:
            StoreUnavailable: Nothing is known of what is known.
        """
        kept: defaultdict[Document, list[bytes]] = defaultdict(list)
        for document, logits in self._ledger.logits({one.document for one in sought}):
            kept[document].append(logits)
        known: defaultdict[TextKey, dict[bytes, Logit]] = defaultdict(dict)
        for one in sought:
            for logits in kept[one.document]:
                known[one.key].update(unpack_of(one.key, logits, one.hypotheses))
        return {key: pairs for key, pairs in known.items() if pairs}

    def close(self) -> None:
        """Close the database's connections, those of the dead letters beside it as well."""
        self._ledger.close()


class LedgerDeadLetters:
    """``DeadLetters`` over the ledger, counted."""

    def __init__(self, ledger: DeadLedger, *, meter: Meter) -> None:
        self._ledger = ledger
        self._meter = meter

    def park(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters, without the texts of erased documents; the same id again replaces the earlier one.

        Raises:
            StoreUnavailable: Nothing is known to be kept; the messages must not be acknowledged.
        """
        self._ledger.park([DeadRow(**letter._asdict()) for letter in letters])
        if letters:
            self._meter.add(DEAD_LETTERS, len(letters))

    def close(self) -> None:
        """Close the database's connections, those of the tags beside it as well."""
        self._ledger.close()
