"""The API of a test behind a real server, for what only bytes on a socket can show."""

import socket
import threading
import time
from contextlib import closing
from statistics import quantiles

import httpx
import uvicorn

from producers.http.app import make_app
from producers.http.server import protocol_that_waits
from tests.http.fixtures import Api
from tests.servers import free_port, wait_until


class Server:
    """The API behind a real uvicorn, in this process."""

    def __init__(self, api: Api, *, receive_s: float) -> None:
        self.port = free_port()
        self.api = api
        app = make_app(api.loaded, broker=api.queue)  # one of its own: its tasks belong to its loop
        config = uvicorn.Config(
            app, port=self.port, http=protocol_that_waits(receive_s), log_config=None, access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until("uvicorn listens", lambda: self._server.started, timeout_s=10)

    def p95_ms(self) -> float:
        """How long others wait for an answer now; each of them gets one."""
        seconds: list[float] = []
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}") as others:
            for _ in range(40):
                began = time.perf_counter()
                assert others.get("/livez").status_code == 200
                seconds.append(time.perf_counter() - began)
        return 1000 * quantiles(seconds, n=20)[-1]

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    def send(self, *parts: bytes, pause_s: float = 0.0, timeout_s: float = 15.0) -> int:
        """The status that is answered to these bytes; 0 where the connection is closed without one."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause_s)
                answer = connection.recv(200)
            except (BrokenPipeError, ConnectionResetError):
                return 0
        return int(answer.split()[1]) if answer else 0
