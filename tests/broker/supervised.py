"""A supervisor as people start it, with its workers, for tests."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.broker.sites import Site
from tests.children import background
from tests.processes import events_in
from tests.servers import wait_until

SLOW = {"TAGMILL_MODEL__NAME": "fake:pass_s=0.2", "TAGMILL_BATCHING__MAX_MESSAGES": "8"}


@dataclass
class Supervisor:
    """A running `tagmill worker --devices …`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, str]]:
        return events_in(self.text, name)

    def pids(self) -> list[int]:
        """The workers that run now, the oldest first."""
        pids = [int(event["pid"]) for event in self.events("child.started")]
        return [pid for pid in pids if is_running(pid)]

    def wait_until_consuming(self, n: int) -> None:
        """Return once so many workers have begun to consume."""

        def consume() -> bool:
            assert self.process.poll() is None, self.text
            return len(self.events("worker.consuming")) >= n

        wait_until(f"{n} workers consume", consume, timeout_s=90)

    def ended(self, within_s: float = 60) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(within_s)


def is_running(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def supervised(site: Site, *arguments: str, **environ: str) -> Iterator[Supervisor]:
    """A supervisor and what it starts; all of it is gone when the block ends, and its log is shown if that fails."""
    command = [sys.executable, "-m", "tagmill", "worker", *arguments]
    log = site.folder / "supervisor.log"
    with background(command, environ={**site.environ, **SLOW, **environ}, log=log) as process:
        supervisor = Supervisor(process, log)
        try:
            yield supervisor
        except BaseException:
            print("\n".join(line[:200] for line in supervisor.text.splitlines()[-40:]))
            raise


def on_cpu(site: Site, workers: int, environ: Mapping[str, str] | None = None) -> AbstractContextManager[Supervisor]:
    """A supervisor with so many workers on the CPU."""
    return supervised(site, "--devices", "cpu", "--workers-per-device", str(workers), **(environ or {}))
