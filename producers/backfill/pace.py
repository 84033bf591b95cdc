"""When a backfill may send, decided from what was seen: values only, no clock and no broker.

Bulk comes after live in the queues and in the worker already. This keeps it from being there at all while live traffic
is in trouble, holds the share of the queue that a backfill takes, and keeps it within the hours it was given.
"""

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Final, Self

from tagging.errors import SettingsError

_HOURS: Final = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
WINDOW_IS_FULL: Final = "its window is full"
"""A reason to wait that is none to worry: the answers to what was sent are on their way."""
_LOOK_AGAIN_S: Final = 1.0
_CLOSED_LOOK_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """A part of every day, in local time; it may pass midnight."""

    opens: time
    closes: time

    @classmethod
    def parse(cls, text: str) -> Self:
        """The hours of ``22:00-06:00``.

        Raises:
            SettingsError: It is not of that form.
        """
        match = _HOURS.fullmatch(text.strip())
        try:
            if match is not None:
                first, second, third, fourth = map(int, match.groups())
                return cls(opens=time(first, second), closes=time(third, fourth))
        except ValueError:
            pass
        raise SettingsError([f"--between: expected hours such as 22:00-06:00, got {text!r}"])

    def __contains__(self, now: datetime) -> bool:
        at = now.time()
        if self.opens <= self.closes:
            return self.opens <= at < self.closes
        return at >= self.opens or at < self.closes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the queue a backfill may take."""

    in_flight: int
    """Messages that are sent and not answered."""
    live_waiting_high: int
    """So many live messages waiting hold the backfill,"""
    live_waiting_low: int
    """until there are no more than so many,"""
    live_age_s: float
    """as does a live message that was accepted so long ago and is not finished."""
    max_rate: float | None = None
    """Items a second, averaged since the run began."""
    hours: Hours | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was seen."""

    in_flight: int
    live_waiting: int
    live_age_s: float
    sent: int
    """Items since the run began,"""
    elapsed_s: float
    """so many seconds ago."""
    now: datetime
    """Local time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """So many messages may be sent now."""

    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing may be sent for so many seconds."""

    seconds: float
    reason: str


Decision = Send | Wait


def decide(load: Load, limits: Limits, *, held: bool) -> Decision:
    """Whether to send, and how much.

    Args:
        load: What was seen.
        limits: What is allowed.
        held: Whether live traffic held it the last time: it then has to fall to the low watermark.
    """
    if limits.hours is not None and load.now not in limits.hours:
        return Wait(seconds=_CLOSED_LOOK_S, reason="outside its hours")
    if live_is_behind(load, limits, held=held):
        return Wait(seconds=_LOOK_AGAIN_S, reason="live traffic is behind")
    if limits.max_rate and (early_s := load.sent / limits.max_rate - load.elapsed_s) > 0:
        return Wait(seconds=early_s, reason="ahead of its rate")
    if load.in_flight >= limits.in_flight:
        return Wait(seconds=0.0, reason=WINDOW_IS_FULL)
    return Send(messages=1 if limits.max_rate else limits.in_flight - load.in_flight)


def live_is_behind(load: Load, limits: Limits, *, held: bool) -> bool:
    """Whether live traffic needs the workers for itself."""
    watermark = limits.live_waiting_low if held else limits.live_waiting_high
    return load.live_waiting > watermark or load.live_age_s > limits.live_age_s
