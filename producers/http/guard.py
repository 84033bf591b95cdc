"""What stands before every route: a body that is too long, too slow or packed is refused before anybody looks at it.

The body is read here, whole and once, since routes and webhook signatures want its raw bytes. The answer gets the
headers that keep browsers out of mischief, and the log gets one event for each request: the route's pattern, never the
path, which may name a customer's ticket.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producers.http.problems import Problem, language_of

log = structlog.get_logger()

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_UNPACKED: Final = ("", "identity")
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 16 * 2**20

Observe = Callable[[str, str, int, float], None]
"""Counts a request: its route, method, status and seconds."""


class Guard:
    """An ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, receive_s: float, observe: Observe) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._receive_s = receive_s
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        began = time.perf_counter()
        try:
            body = await self._body(Headers(scope=scope), receive)
            await self._app(scope, _replaying(body, receive), answer.send)
        except Problem as problem:
            await self._refuse(problem, Headers(scope=scope), receive, answer.send)
        finally:
            self._tell(scope, answer.status, time.perf_counter() - began)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            Problem: It is too long, came too slowly, or is packed.
        """
        if headers.get("content-encoding", "").strip().lower() not in _UNPACKED:
            raise Problem(kind="unsupported-media-type", detail="Content-Encoding: send the body as it is, not packed")
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._receive_s):
                return await self._read(receive)
        except TimeoutError:
            detail = f"the request was not here whole within {self._receive_s:g} s"
            raise Problem(
                kind="too-slow", detail=detail, chinese=f"请求未在 {self._receive_s:g} 秒内完整到达"
            ) from None

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b""  # the caller has gone; whatever is answered now reaches nobody
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _refuse(self, problem: Problem, headers: Headers, receive: Receive, send: Send) -> None:
        """Answer, then close: what is left of the body is not wanted.

        A caller that is still sending when its connection is closed may lose the answer, so a little is thrown away
        first.
        """
        response = problem.response(language_of(headers.get("accept-language", "")))
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await _throw_away(receive, most_bytes=_LINGER_BYTES)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _too_large(self) -> Problem:
        limit = self._max_body_bytes
        return Problem(kind="too-large", detail=f"the limit is {limit:,} bytes", chinese=f"上限为 {limit:,} 字节")

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._observe(route, scope["method"], status, seconds)
        log.info("http.answered", method=scope["method"], route=route, status=status, ms=round(1000 * seconds, 1))


class _Answer:
    """Passes an answer on, with our headers on it and an eye on its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 499
        """Until an answer begins: nobody got one."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


async def _throw_away(receive: Receive, *, most_bytes: int) -> None:
    while most_bytes > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        most_bytes -= len(message["body"])


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that hands the body out once, and then waits for the caller to go."""
    handed_out = False

    async def replay() -> Message:
        nonlocal handed_out
        if not handed_out:
            handed_out = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
