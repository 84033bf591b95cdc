"""An analyst's folder beside a site, and the backfills that are run there."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from producers.backfill.job import JobFile
from tests.broker.sites import CANARY, LABELS, Broker, Site
from tests.commands import Ran, Tagmill
from tests.servers import RedisServer, server_folder

SMALL = {
    "TAGMILL_BACKFILL__WINDOW_ROWS": "40",
    "TAGMILL_BACKFILL__CHUNK_ITEMS": "8",
    "TAGMILL_BACKFILL__IN_FLIGHT": "3",
}


class Desk:
    """An analyst's folder beside a site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.environ = {**site.environ, **SMALL, "TAGMILL_BACKFILL__JOBS_DIR": str(site.folder / "jobs")}

    def __call__(self, *arguments: str) -> Ran:
        return Tagmill(self.site.folder, self.environ)("backfill", *arguments)

    def run(self, source: Path, *arguments: str) -> Ran:
        return self(str(source), "-l", ",".join(LABELS), "--json", *arguments)

    def source(self, name: str, rows: int) -> Path:
        """A file of so many rows of which every fifth has the text of the one before."""
        path = self.site.folder / f"{name}.jsonl"
        texts = [f"{name} {CANARY} {i - (i % 5 == 4)}" for i in range(rows)]
        lines = [{"id": f"{name}-{i}", "text": text, "n": i} for i, text in enumerate(texts)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    def path(self, name: str) -> Path:
        return self.site.folder / name

    def job(self, name: str) -> JobFile:
        return JobFile.open(self.site.folder / "jobs", name)

    def reached(self, name: str, answered: int, process: subprocess.Popen[bytes]) -> bool:
        """Whether so many rows of a job are answered, or its process has ended."""
        if process.poll() is not None:
            return True
        path = self.site.folder / "jobs" / f"{name}.job"
        if not path.exists():
            return False
        with closing(JobFile(path)) as job:
            counts = job.counts()
        return counts.read - counts.open >= answered


@contextmanager
def desk_on(server: RedisServer) -> Iterator[Desk]:
    """A desk on this Redis with a worker that runs."""
    broker = Broker.on(server, None)
    with server_folder("backfill") as folder, closing(broker.site(folder)) as site, site.worker().running():
        yield Desk(site)


def lines(path: Path) -> list[dict[str, Any]]:
    """What a file of JSON lines holds."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
