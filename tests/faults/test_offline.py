"""A model that was fetched is loaded and answers without any network: row A44."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.children import ROOT
from tests.engine.checkpoints import VARIANTS, make_checkpoint
from tests.faults.netns import linked
from tests.servers import server_folder
from workers.engines.fetch import fetch

WATCH = Path(__file__).parent / "watched_network"
QUESTION = json.dumps({"text": "the order is not here", "labels": ["refund", "login"]})


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the model "base" lies as it was fetched, with the record of its files, not converted yet."""
    with server_folder("offline") as folder:
        hub = make_checkpoint(folder / "hub", VARIANTS["plain"])

        def download(_source: str, _revision: str, directory: Path) -> None:
            shutil.copytree(hub, directory, dirs_exist_ok=True)

        fetch("base", "some/model", models_dir=folder / "models", revision="v1", download=download)
        yield folder


def test_loading_a_model_asks_nothing_of_any_network(folder: Path) -> None:
    log = folder / "network.log"
    watched = {"PYTHONPATH": f"{WATCH}:{ROOT}", "NETWORK_LOG": str(log)}
    run([sys.executable, "-c", "import socket; socket.getaddrinfo('127.0.0.1', 80)"], folder, **watched)
    assert log.read_text(), "or the test shows nothing"
    log.unlink()
    classify(folder, **watched)
    assert not log.exists(), log.read_text()


def test_a_fetched_model_answers_behind_a_network_that_swallows_everything(folder: Path) -> None:
    with linked() as link:
        link.lead_out()
        link.drop()
        answer = classify(folder, enter=link.enter)
    assert answer["model"]["revision"].startswith("v1@"), "its files are those that were recorded"


def classify(folder: Path, *, enter: Callable[[list[str]], list[str]] = list, **environ: str) -> dict[str, Any]:
    """The answer of a process that has loaded the model anew."""
    settings = {
        "TAGMILL_MODEL__NAME": str(folder / "models" / "base"),
        "TAGMILL_MODEL__CACHE_DIR": str(folder / "cache"),
        "TAGMILL_MODEL__SELF_TEST": "false",  # its weights are random
        "PYTHONPATH": str(ROOT),
    }
    command = enter([sys.executable, "-m", "tagmill", "classify", "--json"])
    answer: dict[str, Any] = json.loads(run(command, folder, **{**settings, **environ}))
    return answer


def run(command: list[str], folder: Path, **environ: str) -> str:
    """What it prints. It is not told that it runs in CI, where some libraries are quieter than elsewhere."""
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        command, input=QUESTION, env=inherited | environ, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
