"""Two tiers as one cache: the worker's memory before what all workers share."""

from collections.abc import Mapping, Sequence

from workers.ports import CachedLogits, CacheKey, Hit, ResultCache


class TieredResultCache:
    """Asks ``local`` first and ``shared`` for the rest; what the shared tier knew is kept in the local one."""

    def __init__(self, local: ResultCache, shared: ResultCache) -> None:
        self._local = local
        self._shared = shared

    def get_many(self, keys: Sequence[CacheKey]) -> list[Hit | None]:
        """What either tier knows, in the order of the keys."""
        hits = self._local.get_many(keys)
        unknown = list(dict.fromkeys(key for key, hit in zip(keys, hits, strict=True) if hit is None))
        if not unknown:
            return hits
        found = {key: hit for key, hit in zip(unknown, self._shared.get_many(unknown), strict=True) if hit is not None}
        if found:
            self._local.put_many({key: hit.logits for key, hit in found.items()})
        return [hit or found.get(key) for key, hit in zip(keys, hits, strict=True)]

    def put_many(self, entries: Mapping[CacheKey, CachedLogits]) -> None:
        """Remember in both tiers."""
        self._local.put_many(entries)
        self._shared.put_many(entries)
