"""When an account may be called: no oftener than it allows, not while it asks for peace, hardly while it is down.

One ``Pace`` for each account and process; several processes each keep to the limit by themselves. Time is an argument.
"""

from threading import Lock


class Pace:
    """A token bucket and a circuit breaker. Safe to share between threads."""

    def __init__(self, *, max_per_minute: int, breaker_failures: int, breaker_pause_s: float) -> None:
        self._every_s = 60.0 / max_per_minute
        self._most = max(1.0, max_per_minute / 6)  # a burst of ten seconds
        self._breaker_failures = breaker_failures
        self._breaker_pause_s = breaker_pause_s
        self._lock = Lock()
        self._tokens = self._most
        self._filled_at: float | None = None
        self._promised_until = 0.0
        self._quiet_until = 0.0
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """Whether the account is taken for down."""
        return self._failures >= self._breaker_failures

    def wait_s(self, now: float) -> float:
        """0: begin now, it is counted. Else in so many seconds, and later for each one that is told to wait."""
        with self._lock:
            self._fill(now)
            if now < self._quiet_until:
                return self._promise(self._quiet_until) - now
            if self._tokens < 1:
                return self._promise(now + (1 - self._tokens) * self._every_s) - now
            if self.is_open:  # this one is the probe: the others wait for what becomes of it
                self._quiet_until = now + self._breaker_pause_s
            return 0.0

    def spend(self, calls: int) -> None:
        """So many calls were made."""
        with self._lock:
            self._tokens -= calls

    def worked(self) -> None:
        """The account answered."""
        with self._lock:
            if self.is_open:
                self._quiet_until = 0.0
            self._failures = 0

    def asked_for_peace(self, now: float, *, for_s: float) -> None:
        """Leave the account alone for so long: it said so."""
        with self._lock:
            self._quiet_until = max(self._quiet_until, now + for_s)

    def failed(self, now: float) -> bool:
        """It did not answer, or failed; whether this is the failure with which the breaker opens."""
        with self._lock:
            self._failures += 1
            if self.is_open:
                self._quiet_until = max(self._quiet_until, now + self._breaker_pause_s)
            return self._failures == self._breaker_failures

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            self._tokens = min(self._most, self._tokens + max(0.0, now - self._filled_at) / self._every_s)
        self._filled_at = now

    def _promise(self, earliest: float) -> float:
        """Its own moment for each that waits, or all of them would come back at once."""
        self._promised_until = max(earliest, self._promised_until + self._every_s)
        return self._promised_until
