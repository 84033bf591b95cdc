"""An Acceptor takes what many callers send in one transaction, and lets none of them share another's fate."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from ledger.intake import Receipt, Submission
from producers.http.accepting import Acceptor
from tagging.errors import StoreUnavailable
from tagging.names import TAG_TICKET
from tagging.settings import IntakeSettings


class Rows:
    """An intake that cannot write a message of some ids, and is away for others."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []

    def accept(self, submissions: Sequence[Submission], *, claimed_until: datetime | None = None) -> list[Receipt]:
        ids = [submission.id for submission in submissions]
        self.transactions.append(ids)
        if "away" in ids:
            raise StoreUnavailable("the ledger is away")
        if "unwritable" in ids:
            raise ValueError("cannot be written at all")
        return [Receipt(id=id_, outcome="known") for id_ in ids]


def accepted_together(rows: Rows, *ids: str) -> list[Any]:
    """What each of these callers, who come at once, gets."""

    async def send() -> list[Any]:
        intake: Any = rows
        acceptor = Acceptor(intake=intake, broker=None, settings=IntakeSettings())  # type: ignore[arg-type]  # not asked
        wishes = [acceptor.accept([Submission(id=id_, task=TAG_TICKET, message={})]) for id_ in ids]
        running = asyncio.create_task(acceptor.run())
        try:
            return await asyncio.gather(*wishes, return_exceptions=True)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    return asyncio.run(send())


def test_who_comes_at_once_is_written_at_once() -> None:
    rows = Rows()
    assert [receipts[0].id for receipts in accepted_together(rows, "a", "b", "c")] == ["a", "b", "c"]
    assert rows.transactions == [["a", "b", "c"]]


def test_a_message_that_cannot_be_written_fails_alone() -> None:
    a, bad, b = accepted_together(Rows(), "a", "unwritable", "b")
    assert (a[0].id, b[0].id) == ("a", "b")
    assert isinstance(bad, ValueError)


def test_a_ledger_that_is_away_is_asked_once_for_all() -> None:
    rows = Rows()
    outcomes = accepted_together(rows, "a", "away", "b")
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert len(rows.transactions) == 1
