"""The Python of ``docs/message-contract.md``, as a ticketing system that has none of our code would run it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.children import ROOT, worker
from tests.servers import HOST, RabbitServer, RedisServer

PAGE = (ROOT / "docs" / "message-contract.md").read_text(encoding="utf-8")
REDIS, RABBIT = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NONE_OF_OURS = """
import sys
ours = {"tagging", "ledger", "producers", "workers", "tagmill"} & set(sys.modules)
assert not ours, ours
"""


def run(snippet: str, folder: Path, swaps: dict[str, str]) -> list[str]:
    """What the snippet prints, run outside the project against these addresses."""
    for there, here in swaps.items():
        assert there in snippet
        snippet = snippet.replace(there, here)
    script = folder / "helpdesk.py"
    script.write_text(snippet + NONE_OF_OURS)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("TAGMILL_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def environ_of(broker: str, redis: RedisServer, folder: Path) -> dict[str, str]:
    results = redis.url.removesuffix("/0") + "/1"
    return {
        "TAGMILL_BROKER__URL": broker,
        "TAGMILL_RESULTS__URL": results,
        "TAGMILL_CACHE__URL": results,
        "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
        "TAGMILL_MODEL__NAME": "fake",
        "TAGMILL_MODEL__ISOLATE": "false",
    }


@pytest.fixture
def redis_worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    with worker(environ_of(redis_server.url, redis_server, tmp_path), tmp_path / "worker.log"):
        yield redis_server


def test_the_redis_snippet_gets_its_answer(redis_worker: RedisServer, tmp_path: Path) -> None:
    (line,) = run(REDIS, tmp_path, {"127.0.0.1:6379": f"{HOST}:{redis_worker.port}"})
    assert re.match(r"(apply|suggest|abstain) \[", line)


def test_the_rabbitmq_snippet_gets_its_answer(
    rabbit_server: RabbitServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    swaps = {"127.0.0.1:6379": f"{HOST}:{redis_server.port}", "127.0.0.1:5672": f"{HOST}:{rabbit_server.port}"}
    with worker(environ_of(rabbit_server.url, redis_server, tmp_path), tmp_path / "worker.log"):
        (line,) = run(RABBIT, tmp_path, swaps)
    assert line in ("apply", "suggest", "abstain")
