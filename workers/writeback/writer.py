"""Carries one write-back out: look, decide, keep what is intended, call the system, confirm.

Whatever happens between two steps, the order is delivered again and ends the same way: what is intended is in the
ledger before a call and confirmed after it, and adding a tag twice is adding it once.
"""

import json
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, Literal

import structlog

from integrations.system import Busy, Declined, IntegrationError, Unavailable
from ledger.dead import DeadLedger, DeadRow
from ledger.writebacks import Fate, Order, WriteBackLedger
from tagging.answers import Answer
from tagging.errors import InvalidMessage, StoreUnavailable, TagmillError
from tagging.names import QUEUE_WRITEBACK, WRITE_BACK
from tagging.settings import WriteBackSettings
from workers.metrics import WRITE_BACKS
from workers.ports import Meter
from workers.writeback.connections import Connection
from workers.writeback.plan import Plan, Ticket, choose, plan

log = structlog.get_logger()

Outcome = Literal["written", "unchanged", "superseded", "erased", "known", "no_policy", "postponed", "retried", "dead"]

_KNOWN_TAGS_S: Final = 300.0
"""How long the list of an account's tags is believed."""
_LONGEST_PEACE_S: Final = 86_400.0
_TURNS: Final = 64


class Writer:
    """Write-backs for the accounts of this deployment. Safe to share between threads."""

    def __init__(
        self,
        *,
        ledger: WriteBackLedger,
        dead: DeadLedger,
        connections: Mapping[str, Connection],
        settings: WriteBackSettings,
        meter: Meter,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._dead = dead
        self._connections = connections
        self._settings = settings
        self._meter = meter
        self._clock = clock
        self._monotonic = monotonic
        # Two orders about one ticket take turns: a system whose call replaces the list would lose the tags of one.
        self._turns = [Lock() for _ in range(_TURNS)]

    def write(self, id_: str, body: object) -> Outcome:
        """What became of the order; it is finished in the ledger, postponed, or parked.

        Raises:
            StoreUnavailable: The ledger is out of reach; the order has to be delivered again.
        """
        try:
            order = Order.read(body)
        except InvalidMessage as e:
            return self._park(id_, body, e, attempts=1)
        outcome = self._carry_out(id_, order)
        self._meter.add(WRITE_BACKS, outcome=outcome)
        return outcome

    def _carry_out(self, id_: str, order: Order) -> Outcome:
        standing = self._ledger.look_up(id_, order)
        if standing.is_finished:
            return "known"
        if standing.answer is None:
            return self._finish(id_, order, "superseded", reason="another answer stands, or none")
        if (refusal := self._refusal(order)) is not None:
            return self._park(id_, order, refusal, attempts=order.attempts + 1)
        connection = self._connections[order.account]
        if order.label_set is None or order.label_set not in connection.account.write_back:
            return self._finish(id_, order, "no_policy", reason=f"no write_back policy for {order.label_set!r}")
        return self._in_turn(id_, order, standing.answer, connection)

    def _refusal(self, order: Order) -> Declined | None:
        """Why this order goes nowhere, whatever its system would say."""
        if order.account not in self._connections:
            known = ", ".join(sorted(self._connections)) or "none"
            return Declined(f"no account {order.account!r}; this worker knows: {known}")
        if order.account != order.source:
            # Who may send documents of one source must not reach another's tickets by naming it.
            return Declined(f"tags of a document of {order.source!r} to {order.account!r}; they go where it comes from")
        return None

    def _in_turn(self, id_: str, order: Order, answer: Answer, connection: Connection) -> Outcome:
        if (wait_s := connection.pace.wait_s(self._monotonic())) > 0:
            self._ledger.postpone(id_, order, until=self._clock() + timedelta(seconds=wait_s))
            return "postponed"
        try:
            ticket = connection.system.ticket_of(order.ref)
            with self._turn(order, ticket):
                outcome = self._write(id_, order, answer, ticket, connection)
        except IntegrationError as e:
            return self._come_back(id_, order, e, connection)
        except StoreUnavailable:
            raise
        except Exception as e:
            log.exception("writeback.failed", id=id_, account=order.account)
            return self._come_back(id_, order, Unavailable(f"unexpected {type(e).__name__}"), connection)
        connection.pace.worked()
        return outcome

    def _write(self, id_: str, order: Order, answer: Answer, name: str, connection: Connection) -> Outcome:
        assert order.label_set is not None
        policy = connection.account.write_back[order.label_set]
        known = self._known_tags(connection) if policy.only_existing else None
        wanted = choose(answer, policy, mode=order.mode, known=known, tag_of=connection.system.tag_of)
        ticket = self._look_at(name, order, connection)
        todo = plan(order, policy, wanted, ticket)
        if not self._ledger.intend(order, [own for own in todo.held if own.tag in todo.add], now=self._clock()):
            return self._finish(id_, order, "erased", reason="erased")
        noted = self._call(order, connection, ticket.name, todo)
        self._ledger.finish(id_, order, "done", now=self._clock(), held=todo.held, gone=todo.gone)
        log.info(
            "writeback.done",
            id=id_,
            account=order.account,
            added=len(todo.add),
            removed=len(todo.remove),
            noted=noted,
            unknown=wanted.unknown,
        )
        return "written" if todo.add or todo.remove or noted else "unchanged"

    def _look_at(self, name: str, order: Order, connection: Connection) -> Ticket:
        connection.pace.spend(1)
        return Ticket(name=name, tags=connection.system.tags_of(name), own=self._ledger.on_ticket(order.account, name))

    def _call(self, order: Order, connection: Connection, ticket: str, todo: Plan) -> bool:
        """Do it; whether agents were told something."""
        connection.pace.spend(bool(todo.add) + bool(todo.remove) + bool(todo.note))
        if todo.add:
            connection.system.add(ticket, todo.add)
        if todo.remove:
            connection.system.remove(ticket, todo.remove)
        if todo.note is None or not self._ledger.intend_note(order, now=self._clock()):
            return False
        try:
            connection.system.suggest(ticket, todo.note)
        except IntegrationError:
            self._ledger.withdraw_note(order)
            raise
        return True

    def _known_tags(self, connection: Connection) -> frozenset[str] | None:
        now = self._monotonic()
        if now >= connection.known_until:
            connection.pace.spend(1)
            connection.known_tags = connection.system.known_tags()
            connection.known_until = now + _KNOWN_TAGS_S
        return connection.known_tags

    def _turn(self, order: Order, ticket: str) -> Lock:
        return self._turns[hash((order.account, ticket)) % _TURNS]

    def _come_back(self, id_: str, order: Order, cause: IntegrationError, connection: Connection) -> Outcome:
        """Postpone the order for as long as the system wants, or park it."""
        tried = order.tried()
        wait_s = max(self._backoff_s(tried.attempts), self._leave_alone(cause, order, connection))
        if isinstance(cause, Declined) or tried.attempts >= self._settings.max_attempts:
            return self._park(id_, order, cause, attempts=tried.attempts)
        log.warning("writeback.retried", id=id_, account=order.account, attempts=tried.attempts, cause=str(cause))
        self._ledger.postpone(id_, tried, until=self._clock() + timedelta(seconds=wait_s))
        return "retried"

    def _leave_alone(self, cause: IntegrationError, order: Order, connection: Connection) -> float:
        """Tell the account's pace what happened; how many seconds the system asked for."""
        match cause:
            case Declined():
                connection.pace.worked()  # it is there, and answers
            case Busy(after_s=after_s):
                for_s = min(after_s or self._settings.backoff_s, _LONGEST_PEACE_S)
                connection.pace.asked_for_peace(self._monotonic(), for_s=for_s)
                return for_s
            case _:
                if connection.pace.failed(self._monotonic()):
                    log.error("writeback.account_lost", account=order.account, cause=str(cause))
        return 0.0

    def _backoff_s(self, attempts: int) -> float:
        longest_s = min(self._settings.backoff_max_s, self._settings.backoff_s * 2.0 ** min(attempts - 1, 30))
        return longest_s * random.uniform(0.5, 1.0)

    def _finish(self, id_: str, order: Order, outcome: Outcome, *, reason: str) -> Outcome:
        fate: Fate = "done" if outcome == "no_policy" else "superseded"
        self._ledger.finish(id_, order, fate, now=self._clock(), reason=reason)
        return outcome

    def _park(self, id_: str, body: object, cause: TagmillError, *, attempts: int) -> Outcome:
        reason = f"{type(cause).__name__}: {cause}"
        payload = json.dumps(body.afresh().body if isinstance(body, Order) else body, ensure_ascii=False)
        letter = DeadRow(
            id=id_, task=WRITE_BACK, queue=QUEUE_WRITEBACK, reason=reason, attempts=attempts, payload=payload
        )
        self._dead.park([letter])
        log.warning("writeback.parked", id=id_, reason=reason, attempts=attempts)
        return "dead"
