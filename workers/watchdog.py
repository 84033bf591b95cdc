"""Ends a worker whose hub thread stands still: whoever started it starts it again, and the broker delivers again.

A silent broker is what does this, where a channel waits for its last frame for ever, or a fault in a callback. The
device has its own watchdog, ``model.timeout_s``; a ledger or results that are away are waited for by runner threads.
"""

import faulthandler
import os
import threading
from typing import Any, Final

import structlog
from celery import bootsteps

from workers.exits import Exit

log = structlog.get_logger()

_LOOKS: Final = 10
"""In one time limit."""
_LONGEST_LOOK_S: Final = 1.0
_TELL_S: Final = 5.0
_STDERR: Final = 2  # the file itself: Celery puts a logger in the place of sys.stderr


class Pulse:
    """Shows that the hub thread is not stuck. It beats by a timer of the loop, and wherever the thread works or waits
    outside the loop for a good reason: while it reconnects, drains, or finishes one message after another.
    """

    def __init__(self) -> None:
        self.beats = 0

    def beat(self) -> None:
        """The hub thread was here."""
        self.beats += 1


class Silence:
    """How long a pulse has been silent, in looks at it.

    Looks are counted and no clock is read, since a process that was paused, or a machine that slept, has missed looks
    and beats alike.
    """

    def __init__(self, *, limit_s: float) -> None:
        self.look_s = min(limit_s / _LOOKS, _LONGEST_LOOK_S)
        """Seconds from one look to the next."""
        self._limit_s = limit_s
        self._beats = -1
        self._looks = 0

    @property
    def lasts_s(self) -> float:
        """Seconds, by the last look."""
        return self._looks * self.look_s

    def is_too_long_at(self, beats: int) -> bool:
        """Look once: whether the limit is reached."""
        self._looks = self._looks + 1 if beats == self._beats else 0
        self._beats = beats
        return self.lasts_s >= self._limit_s


class LoopWatchdog(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Watches from the moment before the consumer starts, its model loaded, until the consumer has stopped."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._limit_s: float = worker.app.settings.worker.loop_timeout_s
        self._pulse: Pulse = worker.app.pulse
        self._ended = threading.Event()
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:  # noqa: ARG002  # celery's signature, here and below
        """Whether the settings want it."""
        return self._limit_s > 0

    def start(self, worker: Any) -> None:
        """Begin to watch."""
        silence = Silence(limit_s=self._limit_s)
        worker.timer.call_repeatedly(silence.look_s / 2, self._pulse.beat)
        threading.Thread(target=self._watch, args=(silence,), name="loop-watchdog", daemon=True).start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002
        """The consumer has stopped; what comes after it has its own time limits."""
        self._ended.set()

    terminate = stop

    def _watch(self, silence: Silence) -> None:
        while not self._ended.wait(silence.look_s):
            if silence.is_too_long_at(self._pulse.beats):
                _die(silence.lasts_s, self._limit_s)


def _die(silent_s: float, limit_s: float) -> None:
    # From a thread of its own: what the hub thread hangs in may be writing a line to a pipe that nobody reads.
    telling = threading.Thread(target=_tell, args=(silent_s, limit_s), daemon=True)
    telling.start()
    telling.join(_TELL_S)
    os._exit(Exit.STUCK)


def _tell(silent_s: float, limit_s: float) -> None:
    log.error("worker.stuck", silent_s=round(silent_s, 1), limit_s=limit_s, hint="stacks of all threads follow")
    faulthandler.dump_traceback(file=_STDERR, all_threads=True)
