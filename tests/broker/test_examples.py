"""The pages in ``examples/`` get their tags from a worker, are short, and need nothing of ours."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.test_contract_snippets import NONE_OF_OURS, environ_of
from tests.children import ROOT, worker
from tests.servers import RedisServer

EXAMPLES = ROOT / "examples"
FLASK = """
from flask_page import app
print(app.test_client().post("/", data={"text": "Where is my parcel?", "labels": "delivery, login"}).text)
"""
DJANGO = """
import django_page
from django.test import Client
ticket = {"text": "Where is my parcel?", "label": ["delivery", "login"], "ref": "T-1"}
print(Client(SERVER_NAME="localhost").post("/tags", ticket).content.decode())
"""


@pytest.fixture
def redis_worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    environ = environ_of(redis_server.url, redis_server, tmp_path)
    with worker({**environ, "TAGMILL_LABELS__SUGGEST_AT": "0"}, tmp_path / "worker.log"):
        yield redis_server


def run(program: str, redis: RedisServer) -> str:
    """What the program prints beside the examples."""
    results = redis.url.removesuffix("/0") + "/1"
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("TAGMILL_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program + NONE_OF_OURS],
        env={**environ, "BROKER_URL": redis.url, "RESULTS_URL": results},
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_flask_page_shows_a_tag_for_each_label(redis_worker: RedisServer) -> None:
    page = run(FLASK, redis_worker)
    assert page.count("<li>") == 2
    assert "<li>delivery: " in page


def test_the_django_view_answers_with_tags(redis_worker: RedisServer) -> None:
    tags = json.loads(run(DJANGO, redis_worker))["tags"]
    assert {tag["label"] for tag in tags} <= {"delivery", "login"}
    assert tags


@pytest.mark.parametrize("name", ["flask_page.py", "django_page.py"])
def test_a_page_has_at_most_thirty_lines(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 30
