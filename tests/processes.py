"""Worker processes for tests: started as people start them, awaited, stopped, and their logs shown when a test fails.

    with Worker(folder, environ={"TAGMILL_BROKER__URL": ...}).running() as worker:
        ...
        worker.stop()

``start`` returns when the worker answers a ping, which it does from its loop, so after its model is loaded and its
queues are consumed.
"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import psutil
from celery import Celery

from tests.servers import wait_until

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0
STOP_S = 40.0
_SUCCEEDED = re.compile(r"Task \S+\[(\S+)\] succeeded")


class WorkerFailed(AssertionError):
    """A worker did not start, or did not stop; the text ends with the last lines of its log."""


class Worker:
    """``python -m celery -A workers.app worker`` with settings from the environment."""

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str],
        control: Celery,
        name: str = "w1@tests",
        arguments: Sequence[str] = ("--loglevel", "info"),
        app: str = "workers.app",
    ) -> None:
        self.name = name
        self.log = folder / f"{name.partition('@')[0]}.log"
        self._environ = environ
        self._control = control
        self.command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", name, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers a ping.

        Raises:
            WorkerFailed: It ended, or did not answer in time.
        """
        self.launch()
        try:
            wait_until(f"{self.name} answers a ping", self._answers, timeout_s=START_S)
        except TimeoutError as e:
            self.kill()
            raise WorkerFailed(f"{e}\n{self.last_lines()}") from None
        return self

    def launch(self) -> None:
        """Start it, and leave it alone."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.log.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @contextmanager
    def running(self) -> Iterator[Self]:
        """A started worker that is gone when the block ends; its log is shown if the block fails."""
        try:
            yield self.start()
        except BaseException:
            print(f"--- {self.name}\n{self.last_lines()}")
            raise
        finally:
            self.kill()

    @property
    def pid(self) -> int:
        """The id of the worker's process."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether its process is gone."""
        return self._process is not None and self._process.poll() is not None

    @property
    def engine_pids(self) -> list[int]:
        """The ids of its children that serve a model."""
        return [
            child.pid
            for child in psutil.Process(self.pid).children()
            if any("spawn_main" in word for word in child.cmdline())
        ]

    @property
    def text(self) -> str:
        """Everything it has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def answered(self) -> Counter[str]:
        """How often it has logged, as Celery does, that it succeeded in the task of this id."""
        return Counter(_SUCCEEDED.findall(self.text))

    def events(self, name: str) -> list[dict[str, str]]:
        """The fields of each event of this name that it has logged."""
        return events_in(self.text, name)

    def last_lines(self, n: int = 25) -> str:
        """The end of its log, without the answers."""
        return "\n".join(line[:200] for line in self.text.splitlines()[-n:])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; its engine process is not told."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Its exit code, once it has ended.

        Raises:
            WorkerFailed: It has not in time.
        """
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise WorkerFailed(f"{self.name} did not end within {timeout_s:g} s\n{self.last_lines()}") from None

    def stop(self) -> int:
        """Ask it to finish what it has fetched and to end; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it and its children at once."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            tree = []
        for member in tree:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(10)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise WorkerFailed(f"{self.name} exited with {self._process.returncode}\n{self.last_lines()}")
        return bool(self._control.control.ping(destination=[self.name], timeout=1.0, limit=1))


def events_in(text: str, name: str) -> list[dict[str, str]]:
    """The fields of each event of this name in a log."""
    return [
        {field: quoted or plain for field, quoted, plain in _FIELD.findall(line)}
        for line in text.splitlines()
        if f"event={name}" in line.split()
    ]


_FIELD = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))')
