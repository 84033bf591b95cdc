"""The ledger as commands open it: migrated, and closed afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ledger.database import Database, open_database
from ledger.dead import DeadLedger
from ledger.intake import Intake
from ledger.tags import TagLedger
from ledger.upgrade import upgrade
from tagging.settings import Settings


class Ledgers(NamedTuple):
    """What one database holds."""

    database: Database
    tags: TagLedger
    dead: DeadLedger
    intake: Intake


@contextmanager
def open_ledgers(settings: Settings) -> Iterator[Ledgers]:
    """The tags, the dead letters and the intake.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    upgrade(settings.ledger.url)
    database = open_database(settings.ledger.url)
    try:
        yield Ledgers(database, TagLedger(database), DeadLedger(database), Intake(database))
    finally:
        database.close()
