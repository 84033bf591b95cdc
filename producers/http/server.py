"""uvicorn, with a time limit on a request's head: it waits for the first one for ever."""

import asyncio
import signal
import socket
from typing import Any

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tagging.settings import Settings

log = structlog.get_logger()


def protocol_that_waits(receive_s: float) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, which lets go of a connection that sends no whole head within ``receive_s``.

    For the first request that counts from the connection on, for later ones from the head's first byte: between them
    uvicorn's own limit for idle connections holds, and ends with that byte.
    """

    class Impatient(H11Protocol):
        """See above."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_timer = self._timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._head_is_open():
                self._head_timer.cancel()
            elif self._head_timer.cancelled():
                self._head_timer = self._timer()

        def _timer(self) -> asyncio.TimerHandle:
            return asyncio.get_running_loop().call_later(receive_s, self._let_go)

        def _head_is_open(self) -> bool:
            """Whether a head has begun and is not whole."""
            rest, _ = self.conn.trailing_data
            return self.conn.their_state is h11.IDLE and bool(rest)

        def _let_go(self) -> None:
            transport: Any = self.transport
            if not transport.is_closing():
                transport.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                transport.close()

    return Impatient


def serve(app: Any, settings: Settings) -> None:
    """Answer requests until SIGTERM or Ctrl-C; those under way are finished."""
    http = settings.http
    config = uvicorn.Config(
        app,
        host=http.address,
        port=http.port,
        http=protocol_that_waits(http.receive_s),
        ws="none",
        log_config=None,
        access_log=False,  # ours names no path
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(http.wait_s) + 5,
        backlog=2048,
    )
    # uvicorn raises the signal that it stopped for once more, when all is done: it has no one left to tell.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    _Server(config).run()


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            log.info("http.serving", address=self.config.host, port=self.config.port)
