"""The first tier: the worker's own memory, bounded, for answers that come again within the same process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from workers.ports import CachedLogits, CacheKey, Hit
from workers.stores.logits import keepable


class LocalResultCache:
    """The most recently used ``max_entries`` answers, each for ``ttl_s`` seconds. Safe to share between threads."""

    def __init__(self, *, max_entries: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = Lock()
        self._entries: OrderedDict[CacheKey, tuple[float, CachedLogits]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get_many(self, keys: Sequence[CacheKey]) -> list[Hit | None]:
        """What is known, in the order of the keys."""
        now = self._clock()
        with self._lock:
            return [self._get(key, now) for key in keys]

    def put_many(self, entries: Mapping[CacheKey, CachedLogits]) -> None:
        """Remember, and forget what was not asked for the longest."""
        expires_at = self._clock() + self._ttl_s
        with self._lock:
            for key, logits in entries.items():
                if keepable(logits):
                    self._entries[key] = (expires_at, tuple(logits))
                    self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def _get(self, key: CacheKey, now: float) -> Hit | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, logits = entry
        if expires_at <= now:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return Hit(logits, "local")
