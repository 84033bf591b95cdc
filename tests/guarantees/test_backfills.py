"""A backfill that is killed at any point and run again writes what one clean run writes.

Its sources, outputs and jobs: ``tests/broker/test_backfill.py``, ``tests/ports/test_backfill_runner.py``.
"""

import random
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.broker.backfill_desk import Desk, desk_on
from tests.broker.sites import LABELS
from tests.children import background
from tests.servers import RedisServer, wait_until


@pytest.fixture(scope="module")
def desk(many_databases: RedisServer) -> Iterator[Desk]:
    """A desk on a Redis with a worker that runs."""
    with desk_on(many_databases) as desk:
        yield desk


def test_killed_at_random_points_and_run_again_it_writes_what_one_clean_run_writes(desk: Desk) -> None:
    seed = random.randrange(1000)
    print(f"seed={seed}")
    source = desk.source("killed", 400)
    chance = random.Random(seed)
    name = "kill"
    arguments = ["-l", ",".join(LABELS), "--job", name, "--out", "killed.out.jsonl"]
    kills = 0
    for answered in sorted(chance.sample(range(1, 300), 4)):
        with background(
            [sys.executable, "-m", "tagmill", "backfill", str(source), *arguments],
            environ=desk.environ,
            log=desk.path("killed.log"),
            cwd=desk.site.folder,
        ) as process:
            wait_until(f"{answered} rows are read or answered", lambda n=answered: desk.reached(name, n, process))
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    assert kills, "no run was killed before its end"
    done = desk.run(source, *arguments[2:])
    assert done.code == 0, done.err
    clean = desk.run(source, "--job", f"{name}-clean", "--again", "--out", "clean.out.jsonl")
    assert clean.code == 0, clean.err
    assert desk.path("killed.out.jsonl").read_bytes() == desk.path("clean.out.jsonl").read_bytes()
    [report] = done.rows
    assert report["read"] == 400 == report["tagged"] + report["cached"]
