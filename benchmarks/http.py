"""The HTTP API over a real Redis and an engine that costs nothing: messages accepted, and how long callers wait.

One uvicorn worker, the ledger in SQLite, synced to disk. The callers run on the same cores and take their share.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import redis

from benchmarks.queue import cpu_s
from ledger.database import open_database
from ledger.intake import Intake
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
                figures: dict[str, Any] = {"accepted": asyncio.run(_accept(server, key, plan.messages))}
                echo(f"accepted: {figures['accepted']}")
                _drain(environ)
                for callers in plan.callers:
                    row = asyncio.run(_wait(server, key, callers, plan.waits))
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


def _drain(environ: Mapping[str, str]) -> None:
    """Return once all that was accepted is tagged: nobody who waits shall wait for that."""
    database = open_database(environ["TAGMILL_LEDGER__URL"])
    intake = Intake(database)
    deadline = time.monotonic() + _LIMIT_S
    while intake.load().unfinished and time.monotonic() < deadline:
        time.sleep(0.1)
    database.close()


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


async def _accept(server: Serving, key: str, messages: int) -> dict[str, Any]:
    """Send so many, one a request, over a few connections."""
    numbers = iter(range(messages))

    async def send(caller: _Caller) -> None:
        for number in numbers:
            await caller.post("/v1/tasks", _message(f"a{number}"), expected=202)

    return await _timed(server, key, [send] * _SENDERS, messages)


async def _wait(server: Serving, key: str, callers: int, waits: int) -> dict[str, Any]:
    """So many callers, each of whom waits for one answer after another."""

    def waiting(number: int) -> Callable[[_Caller], Awaitable[None]]:
        async def wait(caller: _Caller) -> None:
            for i in range(waits):
                await caller.post("/v1/tags", _message(f"w{callers}-{number}-{i}"), expected=200)

        return wait

    return await _timed(server, key, [waiting(number) for number in range(callers)], callers * waits)


async def _timed(
    server: Serving, key: str, work: Sequence[Callable[["_Caller"], Awaitable[None]]], requests: int
) -> dict[str, Any]:
    """Requests a second, ms from request to answer, errors, and CPU of the server for each."""
    callers = [await _Caller.connect(server.url, key) for _ in work]
    before, began = cpu_s(server.pid), time.perf_counter()
    await asyncio.gather(*(do(caller) for do, caller in zip(work, callers, strict=True)))
    took_s, used_s = time.perf_counter() - began, cpu_s(server.pid) - before
    for caller in callers:
        caller.close()
    return {
        "per_s": round(requests / took_s, 1),
        **_percentiles([second for caller in callers for second in caller.seconds]),
        "errors": sum(caller.errors for caller in callers),
        "server_cpu_ms": round(1000 * used_s / requests, 2),
    }


class _Caller:
    """One connection, one request at a time: an HTTP client with a pool for hundreds takes most of the time itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self._reader = reader
        self._writer = writer
        self._head = head
        self.seconds: list[float] = []
        self.errors = 0

    @classmethod
    async def connect(cls, url: str, key: str) -> Self:
        """A caller with this key."""
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        return cls(reader, writer, f"Host: {host}\r\nAuthorization: Bearer {key}\r\n")

    async def post(self, path: str, message: Mapping[str, Any], *, expected: int) -> None:
        """Send the message and read the answer."""
        began = time.perf_counter()
        body = json.dumps(message).encode()
        self._writer.write(f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await self._reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        self.seconds.append(time.perf_counter() - began)
        self.errors += int(head.split()[1]) != expected

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def _message(name: str) -> dict[str, Any]:
    return {"text": f"订单{name}付款后一直显示处理中，麻烦帮忙看一下", "labels": _LABELS, "ref": name}


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(1000 * cuts[49], 1), "p99_ms": round(1000 * cuts[98], 1)}


def _connections(client: "redis.Redis") -> int:
    return len(client.client_list())
