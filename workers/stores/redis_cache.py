"""The second tier: Redis, shared by every worker. Slow or gone, it is skipped: answers never wait for it."""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final, Self

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from tagging.errors import SettingsError
from workers.ports import CachedLogits, CacheKey, Hit
from workers.stores.logits import keepable, pack, unpack

PREFIX: Final = "tagmill:result"
PAUSE_S: Final = 1.0
# One command for the whole batch: packing a SET for each answer would cost more than everything else here.
_PUT: Final = """
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i], 'EX', ARGV[#KEYS + 1]) end
"""
_FAILURES: Final = (redis.RedisError, OSError)
_log = structlog.get_logger()


class RedisResultCache:
    """Answers in Redis under ``<prefix>:<model>:<labels digest>:<text digest>``, each for ``ttl_s`` seconds.

    After a failure the cache is left alone for ``pause_s`` seconds, so that an outage costs one timeout a second
    rather than two a batch. An outage is logged once when it begins (``cache.lost``) and once when it is over
    (``cache.back``).
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        ttl_s: int,
        prefix: str = PREFIX,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._prefix = prefix
        self._breaker = _Breaker(pause_s=pause_s, clock=clock)

    @classmethod
    def connect(
        cls, url: str, *, ttl_s: int, timeout_ms: int = 50, connect_timeout_ms: int = 200, prefix: str = PREFIX
    ) -> Self:
        """A cache at this URL; nothing is connected yet.

        Raises:
            SettingsError: The URL is not one that the client understands.
        """
        try:
            client = redis.Redis.from_url(
                # Celery's spelling of a socket's path, so that one setting can serve both.
                url.replace("redis+socket://", "unix://", 1),
                socket_timeout=timeout_ms / 1000,
                socket_connect_timeout=connect_timeout_ms / 1000,
                # The library would try ten times; a cache that has to be asked twice is slower than the device.
                retry=Retry(NoBackoff(), 0),
                protocol=2,  # RESP3 would cost a HELLO for each connection and bring nothing here
                decode_responses=False,
            )
        except ValueError:
            # Without its cause, which may quote the URL and with it the password.
            raise SettingsError(["cache.url: expected redis://, rediss:// or unix://path/to/socket"]) from None
        return cls(client, ttl_s=ttl_s, prefix=prefix)

    @property
    def failures(self) -> int:
        """Reads and writes that Redis failed, since the start."""
        return self._breaker.failures

    @property
    def skipped(self) -> int:
        """Reads and writes that were not tried because Redis had just failed, since the start."""
        return self._breaker.skipped

    def get_many(self, keys: Sequence[CacheKey]) -> list[Hit | None]:
        """What is known, in one ``MGET``, in the order of the keys."""
        if not keys or not self._breaker.allows():
            return [None] * len(keys)
        try:
            values = self._client.mget([self._name(key) for key in keys])
        except _FAILURES as e:
            self._breaker.failed(e)
            return [None] * len(keys)
        self._breaker.worked()
        return [_hit(value) for value in values]

    def put_many(self, entries: Mapping[CacheKey, CachedLogits]) -> None:
        """Remember, in one round trip."""
        values = {self._name(key): pack(logits) for key, logits in entries.items() if keepable(logits)}
        if not values or not self._breaker.allows():
            return
        try:
            self._client.eval(_PUT, len(values), *values, *values.values(), self._ttl_s)
        except _FAILURES as e:
            self._breaker.failed(e)
        else:
            self._breaker.worked()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _name(self, key: CacheKey) -> str:
        return f"{self._prefix}:{key.model}:{key.labels}:{key.text}"


class _Breaker:
    """Whether the cache is asked at all, and what is said about it."""

    def __init__(self, *, pause_s: float, clock: Callable[[], float]) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._lock = Lock()
        self._lost_at: float | None = None
        self._retry_at = 0.0
        self.failures = 0
        self.skipped = 0

    def allows(self) -> bool:
        """Whether to ask now; a no is counted."""
        with self._lock:
            if self._lost_at is None or self._clock() >= self._retry_at:
                return True
            self.skipped += 1
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


def _hit(value: object) -> Hit | None:
    logits = unpack(value) if isinstance(value, bytes) else None
    return Hit(logits, "shared") if logits is not None else None
