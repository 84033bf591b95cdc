"""Takes tags off again: those that we have set since a moment and that are still recorded as ours, and no others."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from integrations.system import Busy, Declined, IntegrationError
from ledger.writebacks import OwnTag, WriteBackLedger
from workers.writeback.connections import Connection

_BUSY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What became of one ticket."""

    account: str
    ticket: str
    tags: tuple[str, ...]
    """Taken off; those that somebody else had taken off before are not among them."""
    error: str | None = None
    """Why nothing was taken off; its tags are still recorded as ours."""


def undo(
    own: Sequence[OwnTag],
    *,
    ledger: WriteBackLedger,
    connections: Mapping[str, Connection],
    pause: Callable[[float], object] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Undone]:
    """Take these off, ticket by ticket, at each account's pace; each ticket as it is done.

    Args:
        own: Of ``WriteBackLedger.since``, in its order.
        ledger: Where they are recorded.
        connections: By account.
        pause: In place of sleeping.
        monotonic: In place of the clock that paces.

    Raises:
        StoreUnavailable: The last ticket may not be recorded; taking it up again is safe.
    """
    for (account, ticket), found in groupby(own, key=lambda one: (one.account, one.ticket)):
        rows = list(found)
        try:
            connection = _connection(connections, account)
            while (wait_s := connection.pace.wait_s(monotonic())) > 0:
                pause(wait_s)
            taken = _take_off(connection, ticket, rows, pause)
        except IntegrationError as e:
            yield Undone(account=account, ticket=ticket, tags=(), error=f"{type(e).__name__}: {e}")
            continue
        ledger.removed(rows, now=datetime.now(UTC))
        yield Undone(account=account, ticket=ticket, tags=taken)


def _take_off(
    connection: Connection, ticket: str, rows: Sequence[OwnTag], pause: Callable[[float], object]
) -> tuple[str, ...]:
    try:
        return _call(connection, ticket, rows)
    except Busy as e:
        pause(e.after_s or _BUSY_S)
        return _call(connection, ticket, rows)


def _call(connection: Connection, ticket: str, rows: Sequence[OwnTag]) -> tuple[str, ...]:
    connection.pace.spend(1)
    carried = connection.system.tags_of(ticket)
    wanted = tuple(dict.fromkeys(row.tag for row in rows if row.tag in carried))
    if wanted:
        connection.pace.spend(1)
        connection.system.remove(ticket, wanted)
    return wanted


def _connection(connections: Mapping[str, Connection], account: str) -> Connection:
    try:
        return connections[account]
    except KeyError:
        known = ", ".join(sorted(connections)) or "none"
        raise Declined(f"no account {account!r} here; there are: {known}") from None
