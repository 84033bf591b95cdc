"""The first tier: the worker's own memory, bounded, for pairs that come again within the same process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from threading import Lock

from workers.ports import KnownPairs, Logit, TextKey, WantedPairs
from workers.stores.logits import keepable


@dataclass(slots=True)
class _Text:
    """What is known of one text."""

    logits: dict[bytes, Logit] = field(default_factory=dict)
    expires_at: float = 0.0


class LocalPairCache:
    """At most ``max_entries`` pairs, of the texts used last; a text for ``ttl_s`` seconds after it was last written."""

    def __init__(self, *, max_entries: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = Lock()
        self._texts: OrderedDict[TextKey, _Text] = OrderedDict()
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def get_many(self, wanted: WantedPairs) -> KnownPairs:
        """What is known of what is wanted."""
        now = self._clock()
        with self._lock:
            return {key: found for key, digests in wanted.items() if (found := self._get(key, digests, now))}

    def put_many(self, pairs: KnownPairs) -> None:
        """Remember, and forget the texts that were not asked for the longest."""
        now = self._clock()
        with self._lock:
            for key, logits in pairs.items():
                self._put(key, {digest: logit for digest, logit in logits.items() if keepable(logit)}, now)
            while self._entries > self._max_entries:
                self._forget(next(iter(self._texts)))

    def forget(self, keys: Collection[TextKey]) -> None:
        """Know nothing of these texts any more."""
        with self._lock:
            for key in keys:
                if key in self._texts:
                    self._forget(key)

    def forget_texts(self, digests: Collection[str]) -> int:
        """Know nothing of the texts of these digests any more, whatever model was asked; how many were known."""
        wanted = set(digests)
        with self._lock:
            found = [key for key in self._texts if key.text in wanted]
            for key in found:
                self._forget(key)
        return len({key.text for key in found})

    def _get(self, key: TextKey, digests: Collection[bytes], now: float) -> dict[bytes, Logit]:
        text = self._find(key, now)
        if text is None:
            return {}
        self._texts.move_to_end(key)
        known = text.logits
        return {digest: known[digest] for digest in digests if digest in known}

    def _put(self, key: TextKey, logits: Mapping[bytes, Logit], now: float) -> None:
        if not logits:
            return
        text = self._find(key, now)
        if text is None:
            text = self._texts[key] = _Text()
        self._entries -= len(text.logits)
        text.logits.update(logits)
        self._entries += len(text.logits)
        text.expires_at = now + self._ttl_s
        self._texts.move_to_end(key)

    def _find(self, key: TextKey, now: float) -> _Text | None:
        text = self._texts.get(key)
        if text is not None and text.expires_at <= now:
            self._forget(key)
            return None
        return text

    def _forget(self, key: TextKey) -> None:
        self._entries -= len(self._texts.pop(key).logits)
