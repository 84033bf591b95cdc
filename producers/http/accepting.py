"""Accepts messages for many callers at once: one transaction for all that came while the last one was written.

What is committed is published at once, outside any request, again all together that came meanwhile. Where the broker is
away, or takes too long, the relay publishes it: the claim on it runs out.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from ledger.intake import Due, Intake, Receipt, Submission
from producers.relay import Broker, deliver
from tagging.errors import BrokerUnreachable, StoreUnavailable
from tagging.names import QUEUE_OF_TASK
from tagging.settings import IntakeSettings

log = structlog.get_logger()

_MOST: Final = 256
"""Messages in one transaction."""
_AWAY_S: Final = 2.0
"""The broker is left alone for so long after it failed; what comes meanwhile is the relay's."""
_MOST_UNPUBLISHED: Final = 2048
"""While so many wait for the publisher, what comes is the relay's."""


@dataclass(frozen=True, slots=True)
class _Wish:
    submissions: Sequence[Submission]
    receipts: asyncio.Future[list[Receipt]]


class Acceptor:
    """Puts messages into the intake and on the queue. Of one event loop."""

    def __init__(
        self,
        *,
        intake: Intake,
        broker: Broker,
        settings: IntakeSettings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._intake = intake
        self._broker = broker
        self._settings = settings
        self._clock = clock
        self._wishes: asyncio.Queue[_Wish] = asyncio.Queue()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publisher")
        self._unpublished: list[Due] = []
        self._committed = asyncio.Event()
        self._away_until = clock()

    async def accept(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """A receipt for each, in their order, all of them committed.

        Raises:
            StoreUnavailable: None of them is known to be accepted.
        """
        wish = _Wish(submissions, asyncio.get_running_loop().create_future())
        self._wishes.put_nowait(wish)
        return await wish.receipts

    async def run(self) -> None:
        """Write and publish, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_all())
                group.create_task(self._publish_all())
        finally:
            self._writer.shutdown(wait=True)
            self._publisher.shutdown(wait=True)

    async def _write_all(self) -> None:
        while True:
            await self._write(await self._next())

    async def _publish_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._committed.wait()
            self._committed.clear()
            due, self._unpublished = self._unpublished, []
            await loop.run_in_executor(self._publisher, self._deliver, due)

    async def _next(self) -> list[_Wish]:
        """All that is wished for now, up to the most of one transaction; at least one."""
        wishes = [await self._wishes.get()]
        n = len(wishes[0].submissions)
        while n < _MOST and not self._wishes.empty():
            wishes.append(self._wishes.get_nowait())
            n += len(wishes[-1].submissions)
        return wishes

    async def _write(self, wishes: Sequence[_Wish]) -> None:
        submissions = [submission for wish in wishes for submission in wish.submissions]
        ours = self._may_publish()
        now = self._clock()
        until = now + timedelta(seconds=self._settings.claim_s) if ours else None
        try:
            receipts = await asyncio.get_running_loop().run_in_executor(
                self._writer, lambda: self._intake.accept(submissions, claimed_until=until)
            )
        except StoreUnavailable as e:
            for wish in wishes:
                _fail(wish, e)
            return
        except Exception as e:  # noqa: BLE001  # whatever is wrong with one of them must not become the fate of all
            await self._write_singly(wishes, e)
            return
        left = iter(receipts)
        for wish in wishes:
            _answer(wish, [next(left) for _ in wish.submissions])
        if ours:
            self._unpublished += [
                _due(s) for s, r in zip(submissions, receipts, strict=True) if r.outcome == "accepted"
            ]
            self._committed.set()

    async def _write_singly(self, wishes: Sequence[_Wish], error: Exception) -> None:
        """One of these cannot be written: find it, and take the others."""
        if len(wishes) == 1:
            log.error("http.not_written", cause=type(error).__name__, n=len(wishes[0].submissions))
            _fail(wishes[0], error)
            return
        for wish in wishes:
            await self._write([wish])

    def _may_publish(self) -> bool:
        return self._clock() >= self._away_until and len(self._unpublished) < _MOST_UNPUBLISHED

    def _deliver(self, due: Sequence[Due]) -> None:
        if not due:
            return
        try:
            deliver(due, intake=self._intake, broker=self._broker, settings=self._settings, clock=self._clock)
        except BrokerUnreachable as e:
            self._away_until = self._clock() + timedelta(seconds=_AWAY_S)
            log.warning("http.left_to_relay", n=len(due), cause=str(e))
        except StoreUnavailable as e:
            log.warning("http.left_to_relay", n=len(due), cause=str(e))


def _due(submission: Submission) -> Due:
    return Due(
        id=submission.id,
        task=submission.task,
        queue=QUEUE_OF_TASK[submission.task],
        message=submission.message,
        publishes=0,
    )


def _answer(wish: _Wish, receipts: list[Receipt]) -> None:
    if not wish.receipts.done():  # else the caller has gone
        wish.receipts.set_result(receipts)


def _fail(wish: _Wish, error: Exception) -> None:
    if not wish.receipts.done():
        wish.receipts.set_exception(error)
