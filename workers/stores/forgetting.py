"""Removes a text's answers from the shared cache, whatever was asked of it."""

from collections.abc import Iterable, Iterator
from typing import Final

import redis

from workers.stores.redis_pairs import CLAIMS

_SCAN: Final = 1000


def forget_texts(url: str, digests: Iterable[str]) -> int:
    """Delete every key of ours that names one of these text digests; how many held answers.

    The others are notes of who is computing what, which are there for a moment.
    Looks through the whole database once a digest, without holding Redis up.

    Raises:
        redis.RedisError: The cache cannot be reached; what is there goes after ``cache.ttl_s``.
    """
    with redis.Redis.from_url(url.replace("redis+socket://", "unix://", 1), socket_timeout=5) as client:
        gone = [key for digest in digests for key in _keys(client, digest) if client.delete(key)]
    return sum(not key.endswith(CLAIMS.encode()) for key in gone)


def _keys(client: redis.Redis, digest: str) -> Iterator[bytes]:
    return client.scan_iter(match=f"tagmill:*{digest}*", count=_SCAN)
