"""Every command of ``docs/runbook.md`` exists and does its work."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tagging.settings import Settings, leaves
from tests.children import ROOT, need, worker
from tests.servers import RedisServer, wait_until

PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = list(dict.fromkeys(line for block in BLOCKS for line in block.splitlines()))
SHUTDOWN = next(line for line in COMMANDS if line.endswith(" shutdown"))
NODE = "runbook@tests"


@dataclass(frozen=True)
class Operated:
    """What an operator has before them."""

    environ: dict[str, str]
    worker: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def operated(many_databases: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """A worker that has tagged T-1042 and parked one message, and an environment as an operator has it."""
    need("redis-cli")
    folder = tmp_path_factory.mktemp("runbook")
    tagmill = folder / "tagmill"
    tagmill.write_text(f'#!/bin/sh\nexec {sys.executable} -m tagmill "$@"\n')
    tagmill.chmod(0o755)
    base = many_databases.url.removesuffix("/0")
    # Databases of its own, so that no other test's worker answers.
    environ = {
        "TAGMILL_BROKER__URL": f"{base}/500",
        "TAGMILL_RESULTS__URL": f"{base}/501",
        "TAGMILL_CACHE__URL": f"{base}/502",
        "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
        "TAGMILL_MODEL__NAME": "fake",
        "TAGMILL_MODEL__ISOLATE": "false",
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "REDIS": f"{base}/500",
        "NODE": NODE,
    }
    with worker(environ, folder / "worker.log", "-n", NODE) as process:
        assert run("tagmill enqueue 'Where is it?' -l delivery,login --ref T-1042 --wait 30", environ).returncode == 0
        environ["ID"] = park_one(environ)
        yield Operated(environ, process)
    run('redis-cli -u "$REDIS" config set maxmemory 0', environ)


def park_one(environ: dict[str, str]) -> str:
    """The id of a message that was sent past the checks of `enqueue` and is a dead letter by now."""
    script = (
        "from producers.publisher import Publisher\n"
        "from tagging.settings import load\n"
        "print(Publisher(load().settings).publish('tagmill.tag_ticket', {'text': '', 'labels': ['a', 'b']}))\n"
    )
    sent = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environ}, capture_output=True, text=True, check=True
    )
    id_ = sent.stdout.strip()
    wait_until("it is parked", lambda: id_ in run("tagmill dead list", environ).stdout, every_s=0.2)
    return id_


def run(line: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("line", [line for line in COMMANDS if line != SHUTDOWN])
def test_works_as_it_stands(operated: Operated, line: str) -> None:
    assert not re.search(r"requeue|drop", line) or "$ID" in line
    done = run(line, operated.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(error)" not in done.stdout
    assert "Error" not in done.stderr


def test_a_shutdown_from_afar_ends_the_worker_without_a_reply(operated: Operated) -> None:
    assert run(SHUTDOWN, operated.environ).returncode == 69
    assert operated.worker.wait(30) == 0


def test_every_command_in_the_text_is_one_that_exists() -> None:
    from tagmill.__main__ import COMMANDS as KNOWN

    named = re.findall(r"`tagmill (\w+)", PAGE)
    assert set(named) <= set(KNOWN)


def test_every_event_is_one_that_is_logged() -> None:
    families = "batch|broker|buffer|cache|child|engine|ledger|message|relay|results|supervisor|worker"
    named = set(re.findall(rf"`((?:{families})\.[a-z_]+)`", PAGE))
    sources = "".join(path.read_text() for half in ("workers", "producers") for path in (ROOT / half).rglob("*.py"))
    events = named - {name for name, _ in leaves(Settings())}
    assert events
    assert not {event for event in events if f'"{event}"' not in sources}
