"""Any Celery client can send and read, importing nothing of ours."""

import json
import subprocess
import sys

import pytest

from tests.broker.sites import CANARY, ROOT, Events, Site

pytestmark = pytest.mark.usefixtures("worker")

CLIENT = ROOT / "tests" / "broker" / "foreign_client.py"
OURS = ("tagging", "producers", "workers", "ledger", "tagmill")


def test_send_task_and_async_result_are_all_it_takes(site: Site, events: Events) -> None:
    urls = (site.settings.broker.url, site.settings.results.url)
    done = subprocess.run(
        [sys.executable, "-I", CLIENT, *urls, f"charged twice {CANARY}"],  # -I: without this folder and PYTHONPATH
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert not [module for module in printed["modules"] if module.partition(".")[0] in OURS]
    answer = printed["answer"]
    assert (answer["ref"], answer["labels"]) == ("F-1", ["billing", "login"])
    events.wait_for("task-succeeded", answer["id"])
    assert CANARY not in events.text, "its argsrepr held the text"
