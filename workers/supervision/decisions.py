"""What a supervisor does when a child ends, a signal comes or time passes. Nothing is done here, and no clock is read.

A child that crashed is started again after a while, longer each time; one that crashes again and again, or that refuses
to serve, ends the whole: the others finish what they have fetched, and the exit code says that somebody must act. One
that passed its memory ceiling is started again at once, and one that was told to stop from afar stays away.
"""

import random
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from workers.exits import REFUSALS, Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a supervisor waits for what, in seconds, and how often it tries."""

    drain_s: float
    """From SIGTERM until a child is killed; longer than a worker's own drain."""
    max_crashes: int = 5
    """So many crashes of one child within ``crash_window_s`` are too many."""
    crash_window_s: float = 600.0
    backoff_s: float = 1.0
    """Before the first restart; doubled for each further crash within the window."""
    backoff_max_s: float = 60.0
    hand_back_s: float = 20.0
    """From SIGQUIT until a child is killed: its engine may take a few seconds to end."""
    kill_s: float = 10.0
    """From SIGKILL until the supervisor ends without the child: its driver holds it."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start this child."""

    child: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send this child a signal."""

    child: str
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Tell:
    """Log an event."""

    level: str
    event: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class End:
    """End the supervisor with this exit code."""

    code: int


Action = Start | Send | Tell | End

_LADDER: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)
"""Finish what was fetched; hand it back; end."""
_RUNG: Final = {signal.SIGTERM: 0, signal.SIGINT: 0, signal.SIGQUIT: 1}
_SIGNALS: Final = {number.value: number.name for number in signal.Signals}
_WELL: Final = frozenset({Exit.DONE, Exit.FULL, -signal.SIGTERM})
"""How a child may end that was asked to: Python dies of a SIGTERM that comes while the model loads."""


@dataclass(slots=True)
class _Child:
    runs: bool = False
    start_at: float | None = None
    crashes: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Stop:
    rung: int
    deadline: float
    code: int


class Supervisor:
    """The state of the children, and what follows from each event.

    Args:
        children: Their names.
        jitter: A number from 0 to 1 that spreads restarts, so that children which died together do not load together.
    """

    def __init__(self, children: Sequence[str], limits: Limits, *, jitter: Callable[[], float] = random.random) -> None:
        self._children = {name: _Child() for name in children}
        self._limits = limits
        self._jitter = jitter
        self._stop: _Stop | None = None

    @property
    def due_at(self) -> float | None:
        """When ``passed`` has something to do; None: only an event can change anything."""
        times = [child.start_at for child in self._children.values() if child.start_at is not None]
        return min(times if self._stop is None else [*times, self._stop.deadline], default=None)

    def begin(self) -> list[Action]:
        """Start them all."""
        return self._start(self._children)

    def ended(self, name: str, code: int, *, now: float) -> list[Action]:
        """A child ended with this code, or by this signal if it is negative."""
        self._children[name].runs = False
        if self._stop is not None:
            return self._ended_as_asked(name, code, self._stop)
        match code:
            case Exit.DONE:
                return [_tell("info", "child.finished", node=name), *self._end_if_alone(Exit.DONE)]
            case Exit.FULL:
                return [_tell("warning", "child.full", node=name), *self._start([name])]
            case _ if code in REFUSALS:
                refused = _tell("error", "child.refused", node=name, code=code, hint="its own words stand above")
                return [refused, *self._stop_all(0, code, now)]
            case _:
                return self._crashed(name, code, now)

    def asked(self, number: int, *, now: float) -> list[Action]:
        """This process got a signal: SIGTERM and SIGINT finish, SIGQUIT hands back, and asking again hurries."""
        rung = _RUNG[signal.Signals(number)]
        if self._stop is not None:
            rung = min(max(rung, self._stop.rung + 1), len(_LADDER) - 1)
            return self._stop_all(rung, self._stop.code or Exit.FAILED, now)
        return self._stop_all(rung, Exit.DONE if rung == 0 else Exit.FAILED, now)

    def passed(self, *, now: float) -> list[Action]:
        """It is later."""
        due = [name for name, child in self._children.items() if child.start_at is not None and child.start_at <= now]
        actions = self._start(due)
        if self._stop is not None and self._stop.deadline <= now:
            actions += self._lose_patience(self._stop.rung, now)
        return actions

    def _start(self, names: Iterable[str]) -> list[Action]:
        names = list(names)
        for name in names:
            self._children[name].runs = True
            self._children[name].start_at = None
        return [Start(name) for name in names]

    def _crashed(self, name: str, code: int, now: float) -> list[Action]:
        child, limits = self._children[name], self._limits
        child.crashes = [*(at for at in child.crashes if now - at < limits.crash_window_s), now]
        n = len(child.crashes)
        if n >= limits.max_crashes:
            lost = _tell(
                "error",
                "supervisor.gives_up",
                node=name,
                crashes=n,
                within_s=round(now - child.crashes[0], 1),
                last=in_words(code),
                hint=f"its own words stand above: look for node={name}",
            )
            return [lost, *self._stop_all(0, Exit.FAILED, now)]
        longest_s = min(limits.backoff_max_s, limits.backoff_s * 2 ** (n - 1))
        delay_s = longest_s * (1 + self._jitter()) / 2
        child.start_at = now + delay_s
        crashed = _tell(
            "error", "child.crashed", node=name, cause=in_words(code), crashes=n, restart_s=round(delay_s, 1)
        )
        return [crashed]

    def _stop_all(self, rung: int, code: int, now: float) -> list[Action]:
        limits = self._limits
        number = _LADDER[rung]
        within_s = (limits.drain_s, limits.hand_back_s, limits.kill_s)[rung]
        self._stop = _Stop(rung, now + within_s, code)
        for child in self._children.values():
            child.start_at = None
        running = self._running()
        told = _tell("info", "supervisor.stopping", signal=number.name, children=len(running), within_s=within_s)
        return [told, *(Send(name, number) for name in running), *self._end_if_alone(code)]

    def _ended_as_asked(self, name: str, code: int, stop: _Stop) -> list[Action]:
        if stop.rung == 0 and code not in _WELL:
            stop.code = stop.code or Exit.FAILED
        return [_tell("info", "child.ended", node=name, how=in_words(code)), *self._end_if_alone(stop.code)]

    def _lose_patience(self, rung: int, now: float) -> list[Action]:
        running = self._running()
        if _LADDER[rung] is signal.SIGKILL:
            return [_tell("error", "supervisor.abandons", nodes=",".join(running)), End(Exit.FAILED)]
        late = _tell("error", "supervisor.kills", nodes=",".join(running))
        assert self._stop is not None
        return [late, *self._stop_all(len(_LADDER) - 1, self._stop.code or Exit.FAILED, now)]

    def _end_if_alone(self, code: int) -> list[Action]:
        waiting = any(child.start_at is not None for child in self._children.values())
        return [] if self._running() or waiting else [End(code)]

    def _running(self) -> list[str]:
        return [name for name, child in self._children.items() if child.runs]


def in_words(code: int) -> str:
    """`SIGKILL` or `exit code 70`."""
    return _SIGNALS.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"


def _tell(level: str, event: str, **fields: object) -> Tell:
    return Tell(level, event, fields)
