"""Who calls, what they may do, and how often."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ledger.keys import SCOPES, ApiKey, KeyLedger, Scope
from producers.http.problems import Problem

_MOST_BUCKETS: Final = 10_000
_REMEMBERED_S: Final = 1.0
"""A good key is looked up once a second, not once a request; a revoked one is refused after that."""

ANYBODY: Final = ApiKey(
    id="",
    name="anybody",
    scopes=frozenset(SCOPES),
    source=None,
    per_minute=0,
    created_at=datetime(1970, 1, 1, tzinfo=UTC),
    revoked_at=None,
)
"""Who calls where ``http.access`` is ``none``."""


class Doorkeeper:
    """Lets callers in by their keys. One for a process: rates are counted in its memory."""

    def __init__(self, keys: KeyLedger | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        """None lets everybody in."""
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._seen: dict[bytes, _Seen] = {}

    async def admit(self, request: Request, scope: Scope) -> ApiKey:
        """The key of the caller, who may do this now.

        Raises:
            Problem: They may not, or may not so often.
            StoreUnavailable: Nobody knows.
        """
        if self._keys is None:
            return ANYBODY
        key = await self._known(_token(request), self._keys)
        self._count(key)
        if not key.allows(scope):
            needed = f"the scope {scope!r} is needed, this key has: {', '.join(sorted(key.scopes))}"
            raise Problem(kind="forbidden", detail=needed, chinese=f"需要权限 {scope!r}")
        return key

    async def _known(self, token: str, keys: KeyLedger) -> ApiKey:
        """The key of this token, as it was a second ago at most."""
        digest, now = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest(), self._clock()
        seen = self._seen.get(digest)
        if seen is not None and now - seen.at < _REMEMBERED_S:
            return seen.key
        key = await run_in_threadpool(keys.find, token)
        if key is None:
            self._seen.pop(digest, None)
            raise _unauthorized()
        if len(self._seen) >= _MOST_BUCKETS:
            self._seen.clear()
        self._seen[digest] = _Seen(key, now)
        return key

    def _count(self, key: ApiKey) -> None:
        now = self._clock()
        bucket = self._buckets.pop(key.id, None) or Bucket(tokens=key.per_minute, at=now)
        self._buckets[key.id] = bucket = bucket.refilled(now, per_minute=key.per_minute)
        if len(self._buckets) > _MOST_BUCKETS:
            del self._buckets[next(iter(self._buckets))]  # the one that has not called for longest
        if not bucket.take():
            wait_s = max(1, round(60 / key.per_minute))
            raise Problem(
                kind="too-many-requests",
                detail=f"this key may make {key.per_minute} requests a minute",
                chinese=f"此密钥每分钟最多 {key.per_minute} 次请求",
                headers={"Retry-After": str(wait_s)},
            )


@dataclass(frozen=True, slots=True)
class _Seen:
    key: ApiKey
    at: float


@dataclass(slots=True)
class Bucket:
    """Requests that a key may make at once: a minute's worth at most, refilled all the time."""

    tokens: float
    at: float

    def refilled(self, now: float, *, per_minute: int) -> "Bucket":
        """As it is at ``now``, in seconds."""
        return Bucket(tokens=min(per_minute, self.tokens + (now - self.at) * per_minute / 60), at=now)

    def take(self) -> bool:
        """Take one; whether there was one."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    raise _unauthorized()


def _unauthorized() -> Problem:
    return Problem(
        kind="unauthorized",
        detail="send Authorization: Bearer with a key from `tagmill keys create`",
        chinese="请发送 Authorization: Bearer 加上由 `tagmill keys create` 生成的密钥",
        headers={"WWW-Authenticate": "Bearer"},
    )
