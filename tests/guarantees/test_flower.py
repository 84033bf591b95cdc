"""Flower shows every message of a batch, without its text, to those who know the password, and changes nothing."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from celery import Celery

from ledger.database import open_database
from ledger.intake import Intake, Submission
from tagging.names import QUEUE_COMMENTS, TAG_COMMENT, TAG_TICKET
from tests.children import background, worker
from tests.servers import HOST, RedisServer, free_port, launched, wait_until

CANARY = "canary-4711"
BAD = 5
AUTH = ("tagmill", "open sesame")


@dataclass(frozen=True)
class Watched:
    """Eight messages that a worker did at once, and Flower, which saw it."""

    ids: list[str]
    url: str
    flower: subprocess.Popen[bytes]
    worker: str

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", auth=AUTH, timeout=10)

    def post(self, path: str) -> requests.Response:
        return requests.post(f"{self.url}{path}", auth=AUTH, timeout=10)

    def tasks(self) -> dict[str, dict[str, Any]]:
        return self.get("/api/tasks").json()

    def answers(self) -> list[dict[str, Any]]:
        done = [id_ for i, id_ in enumerate(self.ids) if i != BAD]
        return [self.get(f"/api/task/result/{id_}").json()["result"] for id_ in done]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with launched(RedisServer) as redis:
        url = redis.url.removesuffix("/0")
        yield {
            "TAGMILL_BROKER__URL": f"{url}/0",
            "TAGMILL_RESULTS__URL": f"{url}/1",
            "TAGMILL_CACHE__URL": f"{url}/1",
            "TAGMILL_LEDGER__URL": f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}",
            "TAGMILL_MODEL__NAME": "fake",
            "TAGMILL_MODEL__ISOLATE": "false",
            "TAGMILL_BATCHING__MAX_WAIT_MS": "300",
            "TAGMILL_FLOWER__PASSWORD": AUTH[1],
        }


def flower_process(environ: Mapping[str, str], log: Path, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tagmill", "flower", "--port", str(port)]
    return background(command, environ=environ, log=log, grace_s=10)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return requests.get(f"{url}/healthcheck", timeout=2).ok
        except requests.ConnectionError:
            return False

    wait_until("Flower answers", answers, every_s=0.1)


@pytest.fixture(scope="module")
def watched(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    logs = tmp_path_factory.mktemp("logs")
    port = free_port()
    url, flower_log = f"http://{HOST}:{port}", logs / "flower.log"
    with flower_process(environ, flower_log, port) as flower:
        wait_for(url, flower, flower_log)
        relay = [sys.executable, "-m", "tagmill", "relay"]
        with worker(environ, logs / "worker.log"), background(relay, environ=environ, log=logs / "relay.log"):
            names: list[str] = []

            def worker_is_seen() -> bool:
                names[:] = requests.get(f"{url}/api/workers?refresh=1", auth=AUTH, timeout=10).json()
                return bool(names)

            wait_until("Flower sees the worker", worker_is_seen, every_s=0.2)
            ids = [str(uuid.uuid4()) for _ in range(8)]
            with closing(open_database(environ["TAGMILL_LEDGER__URL"])) as database:
                Intake(database).accept(
                    [
                        Submission(
                            id=id_,
                            task=TAG_TICKET,
                            message={"text": "" if i == BAD else f"{CANARY} {i}", "labels": ["a", "b"]},
                        )
                        for i, id_ in enumerate(ids)
                    ]
                )
            watched = Watched(ids, url, flower, names[0])

            def all_ended() -> bool:
                states = {id_: task["state"] for id_, task in watched.tasks().items()}
                return all(states.get(id_) in ("SUCCESS", "FAILURE") for id_ in ids)

            wait_until("Flower saw all eight end", all_ended, every_s=0.1)
            yield watched
        assert CANARY not in (logs / "relay.log").read_text()


def test_every_message_has_a_state_of_its_own(watched: Watched) -> None:
    tasks = watched.tasks()
    states = [tasks[id_]["state"] for id_ in watched.ids]
    assert states == ["FAILURE" if i == BAD else "SUCCESS" for i in range(8)]
    assert {tasks[id_]["name"] for id_ in watched.ids} == {TAG_TICKET}
    assert {tasks[id_]["worker"] for id_ in watched.ids} == {watched.worker}


def test_every_message_has_its_times_runtime_and_result(watched: Watched) -> None:
    tasks = watched.tasks()
    for i, id_ in enumerate(watched.ids):
        task = tasks[id_]
        assert task["received"] <= task["started"] <= (task["failed"] if i == BAD else task["succeeded"])
        if i != BAD:
            assert task["runtime"] >= 0
            assert "'scores'" in task["result"]
    assert "text: empty" in tasks[watched.ids[BAD]]["exception"]


def test_the_messages_shared_a_batch(watched: Watched) -> None:
    assert max(answer["batch_size"] for answer in watched.answers()) >= 2


def test_no_text_is_shown_anywhere(watched: Watched) -> None:
    pages = ["/api/tasks", "/tasks", *(f"/task/{id_}" for id_ in watched.ids)]
    for page in pages:
        assert CANARY not in watched.get(page).text, page
    task = watched.tasks()[watched.ids[0]]
    assert re.fullmatch(r"<13 chars, blake2b:[0-9a-f]{12}, 2 labels>", task["args"])
    assert task["kwargs"] == "{}"


def test_what_a_foreign_client_announces_is_hidden(watched: Watched, environ: dict[str, str]) -> None:
    client = Celery("foreign", broker=environ["TAGMILL_BROKER__URL"], set_as_current=False)
    client.conf.task_send_sent_event = True
    # A task that no worker will take, so that nothing but the client's own announcement is there to be shown.
    sent = client.send_task(TAG_COMMENT, args=[{"text": CANARY}], kwargs={"text": CANARY}, queue="elsewhere")
    wait_until("Flower saw it", lambda: sent.id in watched.tasks())
    shown = watched.get("/api/tasks").text + watched.get(f"/task/{sent.id}").text
    assert CANARY not in shown
    assert watched.tasks()[sent.id]["args"] == "<not shown>"
    client.close()


def test_shows_how_long_the_queues_are(watched: Watched, environ: dict[str, str]) -> None:
    lengths = watched.get("/api/queues/length").json()["active_queues"]
    assert {q["name"]: q["messages"] for q in lengths} == {"tag.tickets": 0, "tag.comments": 0, "tag.bulk": 0}
    assert QUEUE_COMMENTS in watched.get("/broker").text


@pytest.mark.parametrize("path", ["/", "/tasks", "/api/tasks", "/api/workers", "/broker"])
def test_strangers_are_turned_away(watched: Watched, path: str) -> None:
    assert requests.get(f"{watched.url}{path}", timeout=10).status_code == 401
    assert requests.get(f"{watched.url}{path}", auth=("tagmill", "wrong"), timeout=10).status_code == 401


@pytest.mark.parametrize(
    "call",
    [
        "/api/worker/shutdown/{worker}",
        "/api/worker/queue/cancel-consumer/{worker}?queue=tag.tickets",
        "/api/task/revoke/{task}?terminate=true",
        "/api/task/send-task/tagmill.tag_ticket",
    ],
)
def test_nothing_can_be_changed(watched: Watched, call: str) -> None:
    answer = watched.post(call.format(worker=watched.worker, task=watched.ids[0]))
    assert answer.status_code == 403
    assert watched.worker in watched.get("/api/workers?refresh=1").json()


def test_no_password_stands_in_the_process_list(watched: Watched) -> None:
    assert AUTH[1] not in " ".join(psutil.Process(watched.flower.pid).cmdline())


def test_makes_a_password_where_none_is_set_and_prints_it_once(environ: dict[str, str], tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "flower.log"
    url = f"http://{HOST}:{port}"
    with flower_process({**environ, "TAGMILL_FLOWER__PASSWORD": ""}, log, port) as flower:
        wait_for(url, flower, log)
        (password,) = re.findall(r"user tagmill, password (\S+)", log.read_text())
        assert requests.get(f"{url}/api/tasks", timeout=10).status_code == 401
        assert requests.get(f"{url}/api/tasks", auth=("tagmill", password), timeout=10).json() == {}
    assert flower.returncode == 0
    assert log.read_text().count(password) == 1


def refused(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """How the command ends where it should not start at all."""
    return subprocess.run(
        [sys.executable, "-m", "tagmill", "flower", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "monitor.example"])
def test_stays_on_the_loopback_without_a_password(environ: dict[str, str], address: str) -> None:
    ended = refused({**environ, "TAGMILL_FLOWER__PASSWORD": ""}, "--address", address)
    assert ended.returncode == 2
    assert "flower.password is empty" in ended.stderr
    assert "Set TAGMILL_FLOWER__PASSWORD" in ended.stderr


def test_refuses_a_password_that_flower_cannot_compare(environ: dict[str, str]) -> None:
    ended = refused({**environ, "TAGMILL_FLOWER__PASSWORD": "芝麻开门"})
    assert ended.returncode == 2
    assert "ASCII" in ended.stderr
    assert "芝麻" not in ended.stderr


def test_says_which_port_is_taken(environ: dict[str, str]) -> None:
    taken = environ["TAGMILL_BROKER__URL"].rpartition(":")[2].partition("/")[0]
    ended = refused(environ, "--port", taken)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{taken}" in ended.stderr


def test_says_how_to_install_flower_where_it_is_missing(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "flower.py").write_text("raise ModuleNotFoundError(\"No module named 'flower'\", name='flower')\n")
    ended = refused({**environ, "PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 1
    assert "pip install -e '.[flower]'" in ended.stderr


def test_the_answers_say_which_model_gave_them(watched: Watched) -> None:
    assert {answer["model"]["name"] for answer in watched.answers()} == {"fake"}
