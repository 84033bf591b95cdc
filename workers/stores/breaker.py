"""A breaker leaves a failing cache alone for a while, so that an outage costs one timeout a second."""

import time
from collections.abc import Callable
from threading import Lock

import structlog

from workers.metrics import CACHE_FAILURES, CACHE_SKIPS
from workers.ports import Meter

_log = structlog.get_logger()


class Breaker:
    """Whether the cache is asked at all. An outage is logged when it begins (``cache.lost``) and ends (``cache.back``).

    After a failure the cache is left alone for ``pause_s`` seconds, then asked again. Safe to share between threads.
    """

    def __init__(self, *, pause_s: float, meter: Meter, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._meter = meter
        self._clock = clock
        self._lock = Lock()
        self._lost_at: float | None = None
        self._retry_at = 0.0
        self.failures = 0
        self.skipped = 0

    @property
    def is_closed(self) -> bool:
        """Whether the last call worked."""
        return self._lost_at is None

    def allows(self) -> bool:
        """Whether to ask now; a no is counted."""
        with self._lock:
            if self._lost_at is None or self._clock() >= self._retry_at:
                return True
            self.skipped += 1
        self._meter.add(CACHE_SKIPS)
        return False

    def failed(self, error: Exception) -> None:
        """Leave the cache alone for a while."""
        with self._lock:
            now = self._clock()
            self.failures += 1
            self._retry_at = now + self._pause_s
            begins = self._lost_at is None
            if begins:
                self._lost_at = now
        self._meter.add(CACHE_FAILURES)
        if begins:
            # Only the error's class: its text may hold the URL.
            _log.warning("cache.lost", tier="shared", cause=type(error).__name__, pause_s=self._pause_s)

    def worked(self) -> None:
        """Use the cache again."""
        with self._lock:
            lost_at, self._lost_at = self._lost_at, None
            now = self._clock()
        if lost_at is not None:
            _log.info("cache.back", tier="shared", lost_s=round(now - lost_at, 3), failures=self.failures)
