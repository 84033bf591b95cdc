"""Waiting for answers, any number at once, without a poll and without a connection for each.

``RedisWaiters`` subscribes to the channels on which Celery's Redis backend tells results, all on one connection.
``LedgerWaiters`` is for other backends: one query in a while asks about all that are waited for.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from tagging.errors import StoreUnavailable

log = structlog.get_logger()

_CHANNEL: Final = "celery-task-meta-"
_IDLE_CHANNEL: Final = "tagmill-http-idle"
"""Keeps the subscription alive while nobody waits; nothing is ever said there."""
_READY: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
_LOOKERS: Final = 2
"""Connections for looking results up, beside the one that is subscribed."""
_ANSWER_S: Final = 5.0
_SILENT_S: Final = 10.0
"""A subscription that has said nothing for so long is asked whether it still stands."""
_BACK_OFF_S: Final = 0.5
_POLL_S: Final = 0.2

Done = asyncio.Future[Any]
"""Done once a task has ended: its result, or None where it has none, or that has to be looked up."""


class Waiters(Protocol):
    """Says when tasks are finished."""

    def finished(self, id_: str) -> contextlib.AbstractAsyncContextManager[Done]:
        """A future that is done once the task has ended, one way or the other, or had ended before.

        Enter it before the task is published: what ends in between is not missed. Look at the ledger for how it ended.
        """
        ...

    async def run(self) -> None:
        """Listen, until cancelled."""
        ...

    async def result(self, id_: str) -> Any:
        """What Celery's results backend has for a task that succeeded; None where it has, or can say, nothing."""
        ...

    @property
    def waiting(self) -> int:
        """How many tasks are waited for."""
        ...


class Board:
    """Who waits for what."""

    def __init__(self) -> None:
        self._futures: dict[str, list[Done]] = {}

    def __len__(self) -> int:
        return len(self._futures)

    @property
    def ids(self) -> list[str]:
        """The tasks that are waited for."""
        return list(self._futures)

    def add(self, id_: str) -> Done:
        """One more waits for this task."""
        future: Done = asyncio.get_running_loop().create_future()
        self._futures.setdefault(id_, []).append(future)
        return future

    def remove(self, id_: str, future: Done) -> bool:
        """This one waits no longer; whether it was the last for the task."""
        future.cancel()
        waiting = self._futures.get(id_, [])
        with contextlib.suppress(ValueError):
            waiting.remove(future)
        return not waiting and self._futures.pop(id_, None) is not None

    def settle(self, id_: str, result: Any = None) -> None:
        """The task has ended, with this result where it is known."""
        for future in self._futures.get(id_, ()):
            if not future.done():
                future.set_result(result)


class RedisWaiters:
    """One subscriber for all. After a lost connection everything that is waited for is looked at again."""

    def __init__(self, url: str) -> None:
        self._pubsub: PubSub = _client(url, connections=1, timeout_s=None).pubsub()
        self._redis = _client(url, connections=_LOOKERS, timeout_s=_ANSWER_S)
        self._board = Board()
        self._lost = False

    @property
    def waiting(self) -> int:
        """How many tasks are waited for."""
        return len(self._board)

    @asynccontextmanager
    async def finished(self, id_: str) -> AsyncIterator[Done]:
        """See ``Waiters``."""
        future = self._board.add(id_)
        try:
            with contextlib.suppress(RedisError, OSError):  # the reader notices too, and looks again when it is back
                await self._pubsub.subscribe(_CHANNEL + id_)
                await self._look_at([id_])
            yield future
        finally:
            if self._board.remove(id_, future):
                with contextlib.suppress(RedisError, OSError):
                    await self._pubsub.unsubscribe(_CHANNEL + id_)

    async def run(self) -> None:
        """Listen, until cancelled."""
        try:
            while True:
                try:
                    await self._listen()
                except (RedisError, OSError) as e:
                    if not self._lost:
                        log.warning("results.lost", cause=type(e).__name__, waiting=len(self._board))
                    self._lost = True
                    await asyncio.sleep(_BACK_OFF_S)
        finally:
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py ships it without
            await self._redis.aclose()

    async def result(self, id_: str) -> Any:
        """See ``Waiters``."""
        try:
            stored = await self._redis.get(_CHANNEL + id_)
        except (RedisError, OSError):
            return None
        return _result(_meta(stored)) if stored is not None else None

    async def _listen(self) -> None:
        # Connects where the connection was lost. All of the board: redis-py subscribes again to what it had
        # told Redis, and who came while the connection was away may not be among it.
        await self._pubsub.subscribe(_IDLE_CHANNEL, *(_CHANNEL + id_ for id_ in self._board.ids))
        await self._look_at(self._board.ids)
        if self._lost:
            log.info("results.back", waiting=len(self._board))
        self._lost = False
        while True:
            message = await self._heard()
            if message["type"] == "message":
                self._hear(message["channel"].decode().removeprefix(_CHANNEL), message["data"])

    async def _heard(self) -> Mapping[str, Any]:
        """The next message; a connection that is silent is asked once, and then taken for dead.

        Raises:
            RedisError: It is lost, or says nothing any more.
        """
        message: Mapping[str, Any] | None = await self._pubsub.get_message(timeout=_SILENT_S)
        if message is None:
            await self._pubsub.ping()
            message = await self._pubsub.get_message(timeout=_ANSWER_S)
        if message is None:
            connection: Any = self._pubsub.connection  # which redis-py declares as never there
            await connection.disconnect()
            raise RedisConnectionError(f"no answer within {_ANSWER_S:g} s")
        return message

    async def _look_at(self, ids: Collection[str]) -> None:
        if not ids:
            return
        for id_, stored in zip(ids, await self._redis.mget([_CHANNEL + id_ for id_ in ids]), strict=True):
            if stored is not None:
                self._hear(id_, stored)

    def _hear(self, id_: str, stored: bytes | str) -> None:
        meta = _meta(stored)
        if meta.get("status") in _READY:
            self._board.settle(id_, _result(meta))


class LedgerWaiters:
    """One query for all that are waited for, a few times a second."""

    def __init__(self, ended_among: Callable[[Collection[str]], Collection[str]]) -> None:
        self._ended_among = ended_among
        self._board = Board()

    @property
    def waiting(self) -> int:
        """How many tasks are waited for."""
        return len(self._board)

    @asynccontextmanager
    async def finished(self, id_: str) -> AsyncIterator[Done]:
        """See ``Waiters``."""
        future = self._board.add(id_)
        try:
            yield future
        finally:
            self._board.remove(id_, future)

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            if ids := self._board.ids:
                with contextlib.suppress(StoreUnavailable):
                    for id_ in await run_in_threadpool(self._ended_among, ids):
                        self._board.settle(id_)
            await asyncio.sleep(_POLL_S)

    async def result(self, id_: str) -> Any:  # noqa: ARG002  # nobody knows
        """See ``Waiters``."""
        return None


def _client(url: str, *, connections: int, timeout_s: float | None) -> Redis:
    """A client whose callers queue for its few connections."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=_ANSWER_S,
        socket_timeout=timeout_s,
        socket_connect_timeout=_ANSWER_S,
        health_check_interval=10,
    )
    return Redis.from_pool(pool)


def _result(meta: Mapping[str, Any]) -> Any:
    return meta.get("result") if meta.get("status") == "SUCCESS" else None


def _meta(stored: bytes | str) -> Mapping[str, Any]:
    try:
        meta = json.loads(stored)
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}
