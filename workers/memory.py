"""What memory a worker and its engine take, and the end of one that takes too much.

A process that grows is ended by the kernel sooner or later, in the midst of a batch and perhaps together with its
neighbours. One that notices first finishes what it has fetched.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from celery import bootsteps
from celery.worker import state as worker_state

from tagging.errors import SettingsError
from workers.exits import Exit

log = structlog.get_logger()

PROC: Final = Path("/proc")
_LOOK_S: Final = 5.0  # a look walks through every page that is mapped: 13 ms of CPU for 750 MB
_PSS: Final = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


def memory_mb(pid: int) -> float:
    """Megabytes that a process and its descendants take.

    A page that several processes share counts by its share (PSS), so weights that are mapped by all workers of a
    machine count once for all of them.
    """
    return sum(_pss_kb(each) for each in _family(pid)) / 1024


def require_room(max_mb: int) -> None:
    """Return if this worker, its model loaded, is below the ceiling; 0 is no ceiling.

    Raises:
        SettingsError: It is not, so it would restart for ever; or memory cannot be measured here.
    """
    if not max_mb:
        return
    taken_mb = memory_mb(os.getpid())
    if not taken_mb:
        raise SettingsError(["worker.max_memory_mb: this kernel has no /proc/PID/smaps_rollup (Linux 4.14); set 0"])
    if taken_mb >= max_mb:
        raise SettingsError(
            [
                f"worker.max_memory_mb is {max_mb}, but the worker takes {taken_mb:.0f} MB with its model just loaded: "
                f"it would restart for ever.\n    Set {2 * taken_mb:.0f} or more, or 0 for no ceiling."
            ]
        )


class MemoryCeiling(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Looks every few seconds, and ends the worker as SIGTERM does, but with ``Exit.FULL``."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._max_mb: int = worker.app.settings.worker.max_memory_mb
        self._ended = threading.Event()
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:  # noqa: ARG002  # celery's signature, here and below
        """Whether the settings want it."""
        return self._max_mb > 0

    def start(self, worker: Any) -> None:
        """Begin to look."""
        threading.Thread(target=self._watch, args=(worker.hub,), name="memory-ceiling", daemon=True).start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002
        """The worker ends anyway."""
        self._ended.set()

    terminate = stop

    def _watch(self, hub: Any) -> None:
        while not self._ended.wait(_LOOK_S):
            taken_mb = memory_mb(os.getpid())
            if taken_mb >= self._max_mb:
                log.warning("worker.full", memory_mb=round(taken_mb), max_memory_mb=self._max_mb)
                hub.call_soon(_finish_and_end)
                return


def _finish_and_end() -> None:
    if worker_state.should_stop is None:
        worker_state.should_stop = Exit.FULL


def _family(pid: int) -> Iterator[int]:
    yield pid
    # A child is listed with the thread that started it.
    for children in (PROC / str(pid) / "task").glob("*/children"):
        with suppress(OSError):  # the thread ended meanwhile
            for child in children.read_text(encoding="ascii").split():
                yield from _family(int(child))


def _pss_kb(pid: int) -> int:
    """0 for a process that has ended."""
    with suppress(OSError):
        found = _PSS.search((PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii"))
        return int(found[1]) if found else 0
    return 0
