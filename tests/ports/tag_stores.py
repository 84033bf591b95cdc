"""A tag store of each kind, with a way to look into it."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ledger.database import Database
from ledger.erasure import Eraser
from ledger.tags import TagLedger, TagRow
from tagging.documents import Document
from workers.ports import TagStore
from workers.stores.ledger_store import LedgerTagStore
from workers.stores.memory import MemoryTagStore


class OpenStore(NamedTuple):
    """A tag store with what the port leaves out: its readers, and erasing."""

    store: TagStore
    by_ref: Callable[..., Sequence[TagRow]]
    by_id: Callable[[str], Sequence[TagRow]]
    erase: Callable[[Document], object]


def messages(rows: Iterable[TagRow]) -> dict[str, list[TagRow]]:
    """The rows by the message that asked for them, as a ledger is given them."""
    asked: dict[str, list[TagRow]] = {}
    for row in rows:
        asked.setdefault(row.task_id, []).append(row)
    return asked


def in_memory() -> OpenStore:
    store = MemoryTagStore()
    return OpenStore(store, store.by_ref, store.by_id, store.erase)


def in_database(database: Database) -> OpenStore:
    ledger = TagLedger(database)
    return OpenStore(LedgerTagStore(ledger), ledger.by_ref, ledger.by_id, Eraser(database).erase)
