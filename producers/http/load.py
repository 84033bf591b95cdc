"""Whether more can be taken: watermarks on how much is accepted and unfinished, and for how long.

Above a watermark callers are asked to come back; below four fifths of both they are let in again, so that it does not
go on and off with each message.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog
from starlette.concurrency import run_in_threadpool

from ledger.intake import Load
from producers.http.problems import Problem
from tagging.errors import StoreUnavailable

log = structlog.get_logger()

_EVERY_S: Final = 1.0
_RELIEF: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermarks:
    """From where on it is too much."""

    unfinished: int
    age_s: float


def share_of(load: Load, marks: Watermarks, *, now: datetime) -> float:
    """How full it is, 1 at a watermark: the larger of both shares."""
    return max(load.unfinished / marks.unfinished, age_s(load, now=now) / marks.age_s)


def age_s(load: Load, *, now: datetime) -> float:
    """Seconds since the oldest unfinished message was accepted."""
    return (now - load.since).total_seconds() if load.since is not None else 0.0


def is_busy(share: float, *, was_busy: bool) -> bool:
    """Whether to turn callers away."""
    return share >= (_RELIEF if was_busy else 1.0)


class Tide:
    """Looks at the intake once a second and turns callers away while too much is in it."""

    def __init__(
        self,
        look: Callable[[], Load],
        marks: Watermarks,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._look = look
        self._marks = marks
        self._clock = clock
        self._busy = False
        self._taken = 0
        self.load = Load(unfinished=0, since=None)
        """As it was at the last look."""

    @property
    def age_s(self) -> float:
        """Seconds since the oldest unfinished message was accepted."""
        return age_s(self.load, now=self._clock())

    def admit(self) -> None:
        """Return, if more can be taken.

        Raises:
            Problem: It cannot; says when to come back.
        """
        n = self.load.unfinished + self._taken
        if self._busy or n >= self._marks.unfinished:
            raise Problem(
                kind="busy",
                detail=f"{n:,} messages wait, the oldest for {self.age_s:.0f} s; nothing of this request was taken",
                chinese=f"有 {n:,} 条消息在等待，最早的已等待 {self.age_s:.0f} 秒；本次请求未被接收",
                headers={"Retry-After": str(self._retry_after_s())},
            )

    def took(self, n: int) -> None:
        """So many more were taken since the last look: until the next one they count as unfinished."""
        self._taken += n

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> bool:
        """Look once; False where the ledger is away, which whoever wants to write there is told."""
        before = self._taken
        try:
            self.load = await run_in_threadpool(self._look)
        except StoreUnavailable:
            return False
        self._taken -= before  # what was taken during the look may be in it or not: counted twice rather than never
        busy = is_busy(share_of(self.load, self._marks, now=self._clock()), was_busy=self._busy)
        if busy != self._busy:
            event = "http.busy" if busy else "http.relieved"
            log.warning(event, unfinished=self.load.unfinished, age_s=round(self.age_s, 1))
        self._busy = busy
        return True

    def _retry_after_s(self) -> int:
        """Longer the fuller it is, from 5 s to a minute."""
        share = share_of(self.load, self._marks, now=self._clock())
        return max(5, min(60, round(10 * share)))
