"""Commands of ours as child processes, with their output in a file, ended with the block that started them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import wait_until

ROOT = Path(__file__).resolve().parent.parent


def need(*programs: str) -> None:
    """Skip the test where one of these is not installed, or fail it if ``CI`` is true."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing} not installed, and CI must not skip")
    if missing:
        pytest.skip(f"{missing} not installed")


@contextmanager
def background(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    log: Path,
    cwd: Path = ROOT,
    grace_s: float = 40.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """The running command; at the end of the block it gets SIGTERM, and after ``grace_s`` seconds SIGKILL."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=sink, stderr=subprocess.STDOUT, cwd=cwd
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(grace_s)
        finally:
            process.kill()
            process.wait()


@contextmanager
def worker(
    environ: Mapping[str, str], log: Path, *arguments: str, timeout_s: float = 60.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has loaded its model."""
    command = [sys.executable, "-m", "tagmill", "worker", *arguments]
    with background(command, environ=environ, log=log) as process:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")
            return "event=worker.ready" in log.read_text(errors="replace")

        wait_until("the worker is ready", is_ready, timeout_s=timeout_s, every_s=0.05)
        yield process
