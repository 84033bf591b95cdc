"""The HTTP API over a real Redis and an engine that costs nothing: messages accepted, and how long callers wait.

One uvicorn worker, the ledger in SQLite, synced to disk. The callers run on the same cores and take their share.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import redis

from benchmarks.queue import cpu_s
from ledger.database import open_database
from ledger.keys import KeyLedger
from ledger.upgrade import upgrade
from tagmill.embedded import end_on_signals, free_port, redis_server
from tagmill.workers import Serving, serve_process, worker_process

_LABELS: Final = ["物流配送", "退款退货", "支付", "账号登录", "其他"]
_SENDERS: Final = 32
_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do."""

    messages: int
    """Accepted one a request, to see how many go in a second."""
    waits: int
    """Answers that each caller waits for, one after the other."""
    callers: tuple[int, ...]
    """How many wait at once, run by run."""


def run(plan: Plan, *, echo: Callable[[str], None]) -> dict[str, Any]:
    """Accepted messages a second, and for each number of callers the wait for an answer in ms."""
    end_on_signals()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-bench-")))
        store = stack.enter_context(redis_server(folder / "redis"))
        environ = _environ(folder, store.url)
        client = stack.enter_context(redis.Redis(port=store.port))
        with worker_process(environ, log=folder / "worker.log"):
            with_worker = _connections(client)
            with serve_process(environ, log=folder / "http.log") as server, _key(environ) as key:
                figures: dict[str, Any] = {
                    "accepted": _measured(server, plan.messages, _accept(server.url, key, plan.messages))
                }
                echo(f"accepted: {figures['accepted']}")
                for callers in plan.callers:
                    row = _measured(server, callers * plan.waits, _wait(server.url, key, callers, plan.waits))
                    figures[f"waiting_{callers}"] = row
                    echo(f"{callers} callers: {row}")
                figures["redis_connections"] = _connections(client) - with_worker
    return figures


def _environ(folder: Path, url: Callable[[int], str]) -> dict[str, str]:
    return {
        "TAGMILL_BROKER__URL": url(0),
        "TAGMILL_RESULTS__URL": url(1),
        "TAGMILL_CACHE__URL": url(2),
        "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
        "TAGMILL_MODEL__NAME": "fake",
        "TAGMILL_MODEL__ISOLATE": "false",
        "TAGMILL_HTTP__PORT": str(free_port()),
        "TAGMILL_HTTP__WAIT_S": str(_LIMIT_S),
        "TAGMILL_HTTP__MAX_UNFINISHED": "1000000",
    }


def _measured(server: Serving, requests: int, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """What the work says, with the CPU time that the server took for each request of it."""
    before = cpu_s(server.pid)
    row = asyncio.run(work)
    return {**row, "server_cpu_ms": round(1000 * (cpu_s(server.pid) - before) / requests, 2)}


@contextmanager
def _key(environ: Mapping[str, str]) -> Iterator[str]:
    url = environ["TAGMILL_LEDGER__URL"]
    upgrade(url)
    database = open_database(url)
    try:
        made = KeyLedger(database).create("bench", scopes=("enqueue", "read"), source=None, per_minute=10_000_000)
        yield made.token
    finally:
        database.close()


async def _accept(url: str, key: str, messages: int) -> dict[str, Any]:
    """Send so many, one a request, over a few connections."""
    numbers = iter(range(messages))
    seconds: list[float] = []
    errors = 0

    async def send(client: httpx.AsyncClient) -> None:
        nonlocal errors
        for number in numbers:
            began = time.perf_counter()
            response = await client.post("/v1/tasks", json=_message(f"a{number}"))
            seconds.append(time.perf_counter() - began)
            errors += response.status_code != 202

    began = time.perf_counter()
    async with _client(url, key, _SENDERS) as client:
        await asyncio.gather(*(send(client) for _ in range(_SENDERS)))
    return {"per_s": round(messages / (time.perf_counter() - began), 1), **_percentiles(seconds), "errors": errors}


async def _wait(url: str, key: str, callers: int, waits: int) -> dict[str, Any]:
    """So many callers, each of whom waits for one answer after another."""
    seconds: list[float] = []
    errors = 0

    async def call(client: httpx.AsyncClient, caller: int) -> None:
        nonlocal errors
        for number in range(waits):
            began = time.perf_counter()
            response = await client.post("/v1/tags", json=_message(f"w{callers}-{caller}-{number}"))
            seconds.append(time.perf_counter() - began)
            errors += response.status_code != 200

    began = time.perf_counter()
    async with _client(url, key, callers) as client:
        await asyncio.gather(*(call(client, caller) for caller in range(callers)))
    per_s = callers * waits / (time.perf_counter() - began)
    return {"per_s": round(per_s, 1), **_percentiles(seconds), "errors": errors}


def _client(url: str, key: str, connections: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        timeout=_LIMIT_S,
    )


def _message(name: str) -> dict[str, Any]:
    return {"text": f"订单{name}付款后一直显示处理中，麻烦帮忙看一下", "labels": _LABELS, "ref": name}


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(1000 * cuts[49], 1), "p99_ms": round(1000 * cuts[98], 1)}


def _connections(client: "redis.Redis") -> int:
    return len(client.client_list())
