"""Runs that began and did not end: how a message that ends its worker each time is told from its neighbours."""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from ledger.database import Database
from ledger.lookup import portions
from ledger.schema import crashes


class CrashLedger:
    """A count for each message that came back, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, message_id: str) -> int:
        """Commit that the message runs now; how many of its runs have begun without an end, this one included.

        Raises:
            StoreUnavailable: The database failed; the message must not run uncounted.
        """
        insert = self._database.insert(crashes)
        count = insert.on_conflict_do_update(
            index_elements=[crashes.c.id],
            set_={"runs": crashes.c.runs + 1, "began_at": insert.excluded.began_at},
        ).returning(crashes.c.runs)
        with self._database.writing() as connection:
            row = {"id": message_id, "runs": 1, "began_at": datetime.now(UTC)}
            runs: int = connection.execute(count, row).scalar_one()
        return runs

    def end(self, message_ids: Sequence[str]) -> None:
        """Forget the counts of these messages: their workers outlived them.

        Raises:
            StoreUnavailable: The database failed; the counts are as they were.
        """
        with self._database.writing() as connection:
            for some in portions(message_ids):
                connection.execute(sa.delete(crashes).where(crashes.c.id.in_(some)))
