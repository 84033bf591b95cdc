"""A TCP proxy on loopback that breaks connections in the ways that networks and dying servers do.

    with Proxy(redis.port) as proxy:
        url = proxy.url(redis.url)
        proxy.reset_all()                       # as a firewall that forgot its connections
        proxy.freeze()                          # those that are open go silent and stay so; new ones work
        proxy.cut_replies(carries_a_message)    # the server has acted, the client never hears of it

What it does to a connection it does between two chunks of bytes, so that neither side can tell it from the network.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tests.servers import HOST, wait_until

T = TypeVar("T")
Chooses = Callable[[bytes], bool]

_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends an RST instead of a FIN."""


def carries_a_message(reply: bytes) -> bool:
    """Whether a Redis reply hands out Celery messages: BRPOP's and our script's do, as arrays; a peek's is a string."""
    return reply.startswith(b"*") and b'"delivery_tag"' in reply


@dataclass(slots=True)
class _ReplyRule:
    """What happens to replies that it chooses."""

    chooses: Chooses
    then: Literal["cut", "hold"]
    share: float
    random: random.Random
    most: int

    def applies(self, reply: bytes) -> bool:
        return self.most > 0 and self.chooses(reply) and self.random.random() < self.share


@dataclass(slots=True, eq=False)
class _Link:
    """A client's connection and the one to the server that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    frozen: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Proxy:
    """Listens on a free port of this machine and passes everything on to a server of it, until told otherwise."""

    def __init__(self, port: int, *, at: str = HOST) -> None:
        """Lead to that port; ``at`` is the address to listen on."""
        self._target = (HOST, port)
        self._at = at
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[_Link] = set()
        self._refuses = False
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._rule: _ReplyRule | None = None
        self.hits = 0
        """Replies that ``cut_replies`` or ``hold_reply`` have met so far."""
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, self._at, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def url(self, url: str) -> str:
        """The URL of the server, through this proxy."""
        parts = urlsplit(url)
        userinfo, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{userinfo}{at}{self._at}:{self.port}"))

    def lead_to(self, port: int) -> None:
        """Pass new connections on to another server of this machine, as after a failover."""
        self._target = (self._target[0], port)

    @property
    def connections(self) -> int:
        """How many are open, frozen ones among them."""
        return len(self._links)

    def refuse(self) -> None:
        """Close new connections as soon as they come; those that are open stay."""
        self._refuses = True

    def accept(self) -> None:
        """Take new connections again."""
        self._refuses = False

    def delay(self, seconds: float) -> None:
        """Let each chunk wait, in both directions; 0 ends it."""
        self._delay_s = seconds

    def throttle(self, bytes_per_s: float) -> None:
        """Pass on so many bytes a second on each connection at most; 0 ends it."""
        self._bytes_per_s = bytes_per_s

    def reset_all(self) -> int:
        """Send an RST to both ends of every open connection; how many there were."""
        return self._do(self._reset_all())

    def freeze(self) -> int:
        """Swallow what comes on the connections that are open now, for good; how many there are."""
        return self._do(self._freeze())

    def cut_replies(self, chooses: Chooses, *, share: float = 1.0, seed: int = 0, most: int = 1_000_000) -> None:
        """Drop replies of the server, a share of those that it chooses, and reset their connections."""
        self._rule = _ReplyRule(chooses, "cut", share, random.Random(seed), most)

    def hold_reply(self, chooses: Chooses) -> None:
        """Keep the next reply that it chooses back, and freeze its connection: its client waits for ever."""
        self._rule = _ReplyRule(chooses, "hold", 1.0, random.Random(0), 1)

    def pass_replies(self) -> None:
        """Leave the replies alone again."""
        self._rule = None

    def wait_for_hits(self, n: int, *, timeout_s: float = 30.0) -> None:
        """Return once so many replies have been cut or held."""
        wait_until(f"{n} replies are cut or held", lambda: self.hits >= n, timeout_s=timeout_s, every_s=0.005)

    # On the loop's thread

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(client)
            return
        try:
            from_server, server = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(client)
            return
        link = _Link(client, server)
        self._links.add(link)
        link.tasks = [
            asyncio.ensure_future(self._pump(link, from_client, server, of_server=False)),
            asyncio.ensure_future(self._pump(link, from_server, client, of_server=True)),
        ]
        await asyncio.gather(*link.tasks, return_exceptions=True)
        self._end(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, of_server: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if of_server and self._meets(link, chunk):
                    continue
                await self._take_time(len(chunk))
                if not link.frozen:
                    writer.write(chunk)
                    await writer.drain()
        if not link.frozen and writer.can_write_eof():
            with suppress(OSError):
                writer.write_eof()

    def _meets(self, link: _Link, reply: bytes) -> bool:
        """Whether the reply is one that must not arrive; its connection then meets its end."""
        rule = self._rule
        if rule is None or link.frozen or not rule.applies(reply):
            return False
        rule.most -= 1
        if rule.then == "hold":
            link.frozen = True
        else:
            self._end(link)
        self.hits += 1
        return True

    async def _take_time(self, n: int) -> None:
        seconds = self._delay_s + (n / self._bytes_per_s if self._bytes_per_s else 0.0)
        if seconds:
            await asyncio.sleep(seconds)

    async def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            self._end(link)
        return len(links)

    async def _freeze(self) -> int:
        for link in self._links:
            link.frozen = True
        return len(self._links)

    async def _close(self) -> None:
        self._server.close()
        tasks = [task for link in self._links for task in link.tasks]
        await self._reset_all()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the last handlers return

    def _end(self, link: _Link) -> None:
        self._links.discard(link)
        _reset(link.client)
        _reset(link.server)
        for task in link.tasks:
            if task is not asyncio.current_task():
                task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
