"""A worker and a relay as child processes of a command: started, awaited, stopped."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tagging.errors import TagmillError
from tagmill.embedded import stop


class Serving(NamedTuple):
    """A `tagmill serve` that runs."""

    url: str
    pid: int


@contextmanager
def worker_process(
    environ: Mapping[str, str], *, log: Path, start_s: float = 180.0, arguments: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A `tagmill worker` that consumes when the block begins and has drained and ended when it is left.

    Raises:
        TagmillError: It ended or was not ready in time; the end of its log says why.
    """
    with _running(["worker", *arguments], environ, log=log, start_s=start_s, ready="event=worker.consuming") as process:
        yield process


@contextmanager
def relay_process(environ: Mapping[str, str], *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `tagmill relay` that publishes when the block begins and has ended when it is left.

    Raises:
        TagmillError: It ended or was not ready in time; the end of its log says why.
    """
    with _running(["relay"], environ, log=log, start_s=60.0, ready="event=relay.started") as process:
        yield process


@contextmanager
def serve_process(environ: Mapping[str, str], *, log: Path) -> Iterator[Serving]:
    """A `tagmill serve` that answers when the block begins and has ended when it is left.

    Raises:
        TagmillError: It ended or was not ready in time; the end of its log says why.
    """
    with _running(["serve"], environ, log=log, start_s=60.0, ready="event=http.serving") as process:
        yield Serving(url=f"http://127.0.0.1:{environ['TAGMILL_HTTP__PORT']}", pid=process.pid)


@contextmanager
def _running(
    command: Sequence[str], environ: Mapping[str, str], *, log: Path, start_s: float, ready: str
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-m", "tagmill", *command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, command[0], log, start_s, ready)
        yield process
    finally:
        stop(process, grace_s=40)


def _wait_until_ready(process: subprocess.Popen[bytes], name: str, log: Path, start_s: float, ready: str) -> None:
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline and process.poll() is None:
        if ready in log.read_text(errors="replace"):
            return
        time.sleep(0.05)
    last = "\n".join(deque(log.read_text(errors="replace").splitlines(), maxlen=8))
    raise TagmillError(f"the {name} did not start:\n{last}")
