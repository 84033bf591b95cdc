"""A RabbitMQ of the benchmark's own, from the machine's package, on free ports in its own folder."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from amqp import Connection

from tagmill.embedded import free_port

_START_S: Final = 60.0
_LIBRARIES: Final = Path("/usr/lib/rabbitmq")


@contextmanager
def rabbit_server(folder: Path) -> Iterator[str]:
    """The URL of a RabbitMQ that runs as long as the block does.

    Raises:
        RuntimeError: It is not installed as Debian does it, or did not start.
    """
    programs = sorted(_LIBRARIES.glob("lib/rabbitmq_server-*/sbin/rabbitmq-server"))
    if not programs:
        raise RuntimeError(f"no rabbitmq-server below {_LIBRARIES}")
    folder.mkdir(parents=True)
    port = free_port()
    environ = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
    }
    with (folder / "out.log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs[-1])], env=environ, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        _wait_until_ready(process, port)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _end_epmd(environ)


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with Connection(f"127.0.0.1:{port}", connect_timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("RabbitMQ did not start")


def _end_epmd(environ: dict[str, str]) -> None:
    subprocess.run(["epmd", "-kill"], env=environ, capture_output=True, check=False)
