"""The ledger as commands open it: migrated, and closed afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from ledger.database import open_database
from ledger.dead import DeadLedger
from ledger.tags import TagLedger
from ledger.upgrade import upgrade
from tagging.settings import Settings


@contextmanager
def open_ledgers(settings: Settings) -> Iterator[tuple[TagLedger, DeadLedger]]:
    """The tags and the dead letters.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    upgrade(settings.ledger.url)
    database = open_database(settings.ledger.url)
    try:
        yield TagLedger(database), DeadLedger(database)
    finally:
        database.close()
