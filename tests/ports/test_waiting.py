"""A RedisWaiters tells everybody who waits, those as well who came while its connection was away."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import redis
from structlog.testing import capture_logs

from producers.http import waiting
from producers.http.waiting import RedisWaiters
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, wait_until

SUCCESS = json.dumps({"status": "SUCCESS", "result": {}})
WAIT_S = 15.0


def during(url: str, scene: Callable[[RedisWaiters], Awaitable[None]]) -> None:
    """Play the scene while the waiters listen."""

    async def play() -> None:
        waiters = RedisWaiters(url)
        running = asyncio.create_task(waiters.run())
        try:
            await scene(waiters)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    asyncio.run(play())


def finish(server: RedisServer, id_: str) -> None:
    """End the task as Celery's backend does, once somebody is subscribed to hear it."""
    channel = f"celery-task-meta-{id_}"
    with redis.Redis.from_url(server.url) as client:
        wait_until("its channel is heard", lambda: client.pubsub_numsub(channel)[0][1] > 0, timeout_s=WAIT_S)
        client.set(channel, SUCCESS, ex=60)
        client.publish(channel, SUCCESS)


def test_tells_who_waited_before_the_task_ended(redis_server: RedisServer) -> None:
    async def scene(waiters: RedisWaiters) -> None:
        async with waiters.finished("a") as done:
            await asyncio.to_thread(finish, redis_server, "a")
            await asyncio.wait_for(done, WAIT_S)

    during(redis_server.url, scene)


def test_tells_at_once_what_had_ended_before(redis_server: RedisServer) -> None:
    async def scene(waiters: RedisWaiters) -> None:
        with redis.Redis.from_url(redis_server.url) as client:
            client.set("celery-task-meta-a", SUCCESS, ex=60)
        async with waiters.finished("a") as done:
            await asyncio.wait_for(done, WAIT_S)

    during(redis_server.url, scene)


def test_tells_who_came_while_redis_was_away(redis_server: RedisServer) -> None:
    def lose_it() -> None:
        redis_server.kill()
        wait_until("the loss is noticed", lambda: "results.lost" in str(events), timeout_s=WAIT_S)

    async def scene(waiters: RedisWaiters) -> None:
        async with waiters.finished("before") as before:
            await asyncio.to_thread(lose_it)
            async with waiters.finished("meanwhile") as meanwhile:
                await asyncio.to_thread(redis_server.start)
                for id_ in ("before", "meanwhile"):
                    await asyncio.to_thread(finish, redis_server, id_)
                await asyncio.wait_for(asyncio.gather(before, meanwhile), WAIT_S)

    with capture_logs() as events:
        during(redis_server.url, scene)


def test_leaves_a_connection_that_says_nothing_any_more(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_SILENT_S", 0.3)
    monkeypatch.setattr(waiting, "_ANSWER_S", 0.3)

    with Proxy(redis_server.port) as proxy:

        async def scene(waiters: RedisWaiters) -> None:
            async with waiters.finished("first") as first:
                await asyncio.to_thread(finish, redis_server, "first")
                await asyncio.wait_for(first, WAIT_S)  # so it listens
            async with waiters.finished("a") as done:
                assert proxy.freeze() > 0
                with redis.Redis.from_url(redis_server.url) as client:
                    client.set("celery-task-meta-a", SUCCESS, ex=60)
                await asyncio.wait_for(done, WAIT_S)

        during(proxy.url(redis_server.url), scene)
