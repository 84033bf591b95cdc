"""A worker as a child process of a command: started, awaited, stopped."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tagging.errors import TagmillError
from tagmill.embedded import stop

_READY: Final = "event=worker.consuming"


@contextmanager
def worker_process(
    environ: Mapping[str, str], *, log: Path, start_s: float = 180.0, arguments: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A `tagmill worker` that consumes when the block begins and has drained and ended when it is left.

    Raises:
        TagmillError: It ended or was not ready in time; the end of its log says why.
    """
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-m", "tagmill", "worker", *arguments],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
            start_new_session=True,
        )
    try:
        _wait_until_consuming(process, log, start_s)
        yield process
    finally:
        stop(process, grace_s=40)


def _wait_until_consuming(process: subprocess.Popen[bytes], log: Path, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline and process.poll() is None:
        if _READY in log.read_text(errors="replace"):
            return
        time.sleep(0.05)
    last = "\n".join(deque(log.read_text(errors="replace").splitlines(), maxlen=8))
    raise TagmillError(f"the worker did not start:\n{last}")
