"""The relay: publishes what the intake holds, and once more what was published and never finished.

It stands between "accepted" and the broker, outside any request, so that accepting never waits for a broker. Any number
of relays may run. A publish that failed or timed out may have been stored: the message is published again under the
same id, and workers write its answer once.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, Final, Protocol

import structlog

from ledger.intake import Due, Intake
from ledger.retention import Forgotten
from producers.plan import pause_s, sort_out, sweep_quotas
from tagging.errors import BrokerUnreachable, StoreUnavailable
from tagging.settings import IntakeSettings

log = structlog.get_logger()

_SWEEP_EVERY_S: Final = 15.0
_FORGET_EVERY_S: Final = 60.0


class Broker(Protocol):
    """What a relay asks of ``Publisher``."""

    def publishing(self, messages: Sequence[tuple[str, Mapping[str, Any], str]]) -> Iterable[str]:
        """The ids of (task, message, task id) triples, each once the broker has confirmed it.

        Raises:
            BrokerUnreachable: Whether the next one was stored is not known; those after it were not sent.
        """
        ...

    def waiting(self, queue: str) -> int:
        """How many messages the queue holds.

        Raises:
            BrokerUnreachable: Nobody knows.
        """
        ...


def deliver(
    due: Sequence[Due],
    *,
    intake: Intake,
    broker: Broker,
    settings: IntakeSettings,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Publish these, which the caller has claimed, and note those that the broker has confirmed.

    Raises:
        BrokerUnreachable: Some were not published; they are due again.
        StoreUnavailable: They may be published a second time, which is harmless.
    """
    confirmed: list[str] = []
    try:
        for id_ in broker.publishing([(one.task, one.message, one.id) for one in due]):
            confirmed.append(id_)  # noqa: PERF402  # one by one: what came before a failure counts
    except BrokerUnreachable:
        unknown, *untried = [one.id for one in due[len(confirmed) :]]
        intake.release(untried, now=clock())
        # After the others: a message that the broker will never take must not hold them up.
        intake.release([unknown], now=clock() + timedelta(seconds=settings.backoff_s))
        raise
    finally:
        if confirmed:
            again_at = clock() + timedelta(seconds=settings.sweep_after_s)
            intake.published(confirmed, now=clock(), again_at=again_at)


class Relay:
    """What was accepted gets finished."""

    def __init__(
        self,
        *,
        intake: Intake,
        broker: Broker,
        settings: IntakeSettings,
        forget: Callable[[datetime], Forgotten],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._intake = intake
        self._broker = broker
        self._settings = settings
        self._forget = forget
        self._clock = clock
        self._broker_outage = _Outage(settings, begins="relay.broker_lost", ends="relay.broker_back")
        self._ledger_outage = _Outage(settings, begins="relay.ledger_lost", ends="relay.ledger_back")
        self._sweep = _Timer(min(_SWEEP_EVERY_S, settings.sweep_after_s / 4), clock)
        self._retention = _Timer(_FORGET_EVERY_S, clock)

    def run(self, stop: Event) -> None:
        """Publish until told to stop; what is being published then is finished."""
        log.info("relay.started", poll_ms=self._settings.poll_ms, sweep_after_s=self._settings.sweep_after_s)
        while not stop.is_set():
            stop.wait(self.step())
        log.info("relay.stopped")

    def step(self) -> float:
        """Do what is to be done now; how many seconds to wait before the next step."""
        try:
            forgot = self._forget_old()
            published = self._publish_accepted()
            self._publish_lost()
        except BrokerUnreachable as e:
            return self._broker_outage.goes_on(e)
        except StoreUnavailable as e:
            return self._ledger_outage.goes_on(e)
        self._ledger_outage.ends()
        return 0.0 if forgot or published else self._settings.poll_ms / 1000

    def _publish_accepted(self) -> int:
        if not self._intake.has_due(self._clock()):
            return 0
        # While the broker is away one message is enough to see whether it is back.
        limit = 1 if self._broker_outage.lasts else self._settings.batch
        due = self._intake.claim(now=self._clock(), until=self._claim_ends_at(), limit=limit)
        self._deliver(due)
        return len(due)

    def _publish_lost(self) -> None:
        if not self._sweep.is_due():
            return
        overdue = [backlog for backlog in self._intake.backlogs(self._clock()) if backlog.overdue]
        waiting = {backlog.queue: self._broker.waiting(backlog.queue) for backlog in overdue}
        quotas = sweep_quotas(overdue, waiting, most=self._settings.sweep_batch)
        if not quotas:
            return
        due = self._intake.claim_overdue(quotas, now=self._clock(), until=self._claim_ends_at())
        chosen = sort_out(due, max_publishes=self._settings.max_publishes)
        if chosen.give_up:
            reason = f"published {self._settings.max_publishes} times and never finished"
            self._intake.give_up(chosen.give_up, reason)
            log.error("relay.gave_up", n=len(chosen.give_up), reason=reason)
        if chosen.publish:
            self._deliver(chosen.publish)
            log.warning("relay.swept", n=len(chosen.publish), queues=",".join(sorted(quotas)))

    def _forget_old(self) -> bool:
        if not self._retention.is_due():
            return False
        forgot = self._forget(self._clock())
        if forgot:
            self._retention.hurry()
            log.info(
                "relay.forgot", texts=forgot.texts, rows=forgot.rows, dead_letters=forgot.dead_letters, own=forgot.own
            )
        return bool(forgot)

    def _deliver(self, due: Sequence[Due]) -> None:
        deliver(due, intake=self._intake, broker=self._broker, settings=self._settings, clock=self._clock)
        self._broker_outage.ends()

    def _claim_ends_at(self) -> datetime:
        return self._clock() + timedelta(seconds=self._settings.claim_s)


class _Outage:
    """How long to leave something alone, and one line when it goes and one when it is back."""

    def __init__(self, settings: IntakeSettings, *, begins: str, ends: str) -> None:
        self._settings = settings
        self._begins = begins
        self._ends = ends
        self._failures = 0
        self._began_at = 0.0

    @property
    def lasts(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def goes_on(self, cause: Exception) -> float:
        """One more try failed; seconds until the next."""
        if not self.lasts:
            self._began_at = time.monotonic()
            log.error(self._begins, cause=str(cause))
        self._failures += 1
        return pause_s(
            self._failures,
            first_s=self._settings.backoff_s,
            longest_s=self._settings.backoff_max_s,
            share=random.random(),
        )

    def ends(self) -> None:
        """A try worked."""
        if self.lasts:
            lost_s = round(time.monotonic() - self._began_at, 3)
            log.info(self._ends, lost_s=lost_s, failures=self._failures)
        self._failures = 0


class _Timer:
    """Due at once, and then every so many seconds."""

    def __init__(self, every_s: float, clock: Callable[[], datetime]) -> None:
        self._every = timedelta(seconds=every_s)
        self._clock = clock
        self._due_at = clock()

    def is_due(self) -> bool:
        """Whether its time has come; the next one is then set."""
        now = self._clock()
        if now < self._due_at:
            return False
        self._due_at = now + self._every
        return True

    def hurry(self) -> None:
        """Be due again at once."""
        self._due_at = self._clock()
