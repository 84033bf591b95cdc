"""The commands against a real Redis, a real worker and a real ledger."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
import redis

from producers.app import make_app
from tagging.settings import load
from tagmill.embedded import free_port
from tagmill.workers import worker_process
from tests.commands import ROOT, Tagmill
from tests.servers import RedisServer, launched, server_folder, wait_until


@pytest.fixture(scope="module")
def server():
    with launched(RedisServer) as server:
        yield server


@pytest.fixture(scope="module")
def environ(server):
    with server_folder("commands") as folder:
        url = server.url.rsplit("/", 1)[0]
        yield {
            "TAGMILL_BROKER__URL": f"{url}/4",
            "TAGMILL_RESULTS__URL": f"{url}/5",
            "TAGMILL_CACHE__URL": f"{url}/6",
            "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
            "TAGMILL_MODEL__NAME": "fake",
            "PYTHONPATH": str(ROOT),
        }


@pytest.fixture(scope="module")
def worker(environ, tmp_path_factory):
    with worker_process(environ, log=tmp_path_factory.mktemp("worker") / "worker.log") as process:
        yield process


@pytest.fixture
def tagmill(environ, tmp_path):
    return Tagmill(tmp_path, environ)


def test_a_text_is_enqueued_tagged_and_found_by_its_reference(worker, tagmill):
    sent = tagmill("enqueue", "快递三天没动了", "-l", "物流，退款", "--ref", "T-1", "--wait", "30", "--json")
    assert sent.code == 0, sent.err
    [row] = sent.rows
    assert row["answer"]["labels"] == ["物流", "退款"]
    by_ref, by_id = tagmill("status", "T-1", "--json"), tagmill("status", row["id"], "--json")
    assert by_ref.rows[0]["state"] == by_id.rows[0]["state"] == "TAGGED"
    assert by_ref.rows[0]["tags"][0]["ref"] == "T-1"


def test_lines_of_a_file_keep_their_own_labels_and_the_wrong_one_is_named(worker, tagmill):
    lines = [{"text": "发票抬头写错了", "labels": ["发票", "支付"]}, {"text": ""}, {"text": "好用", "kind": "comment"}]
    done = tagmill(
        "enqueue", "-f", "-", "-S", "sentiment", "--wait", "30", "--json", text="\n".join(map(json.dumps, lines))
    )
    assert done.code == 1
    assert "line 2: text: empty" in done.err
    assert [(r["answer"]["kind"], r["answer"]["label_set"]) for r in done.rows] == [
        ("ticket", None),
        ("comment", "sentiment"),
    ]


def test_an_unknown_id_is_unknown(worker, tagmill):
    done = tagmill("status", "nobody")
    assert done.code == 1
    assert "UNKNOWN" in done.out


def test_a_dead_letter_is_listed_shown_requeued_and_dropped(worker, tagmill, environ):
    from producers.publisher import Publisher
    from tagging.settings import load

    publisher = Publisher(load(environ=environ, config_dir=ROOT / "config").settings)
    wrong = {"text": "订单没发货", "label_set": "nowhere"}
    publisher.publish("tagmill.tag_ticket", wrong, task_id="dead-1")
    wait_until("the message is parked", lambda: "dead-1" in tagmill("dead", "list").out)
    listed = tagmill("dead", "list", "--json")
    assert "no label set 'nowhere'; this worker knows" in listed.rows[0]["reason"]
    shown = tagmill("dead", "show", "dead-1")
    assert json.loads(json.loads(shown.out)["payload"]) == wrong
    assert tagmill("status", "dead-1").out.startswith("dead-1  DEAD")

    requeued = tagmill("dead", "requeue", "dead-1")
    assert requeued.out == "1 requeued, 0 refused\n"
    wait_until("it is parked again", lambda: "dead-1" in tagmill("dead", "list").out)
    assert tagmill("dead", "drop", "dead-1", "--yes").out == "1 dropped\n"
    assert tagmill("dead", "list").out == ""


def test_check_names_each_thing_on_a_line(tagmill):
    done = tagmill("check", "--json")
    assert done.code == 0, done.out
    names = [row["name"] for row in done.rows]
    assert names == [
        "settings",
        "labels",
        "accounts",
        "broker",
        "results",
        "cache",
        "ledger",
        "device",
        "devices",
        "model",
    ]


def test_check_says_which_thing_is_wrong(tagmill, environ):
    broken = Tagmill(tagmill.folder, {**environ, "TAGMILL_CACHE__URL": f"redis://127.0.0.1:{free_port()}/0"})
    done = broken("check", "--no-model", "--json")
    assert done.code == 1
    assert [row["name"] for row in done.rows if not row["ok"]] == ["cache"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, "shutdown"])
def test_up_starts_what_is_missing_and_leaves_nothing_running(tmp_path, environ, end):
    port = free_port()
    own = {
        **environ,
        **{f"TAGMILL_{part}__URL": f"redis://127.0.0.1:{port}/0" for part in ("BROKER", "RESULTS", "CACHE")},
        "TAGMILL_LEDGER__URL": f"sqlite:///{tmp_path / 'ledger.db'}",
    }
    log = tmp_path / "up.log"
    with log.open("wb") as sink:
        up = subprocess.Popen(
            [sys.executable, "-m", "tagmill", "up", "--data", str(tmp_path / "data")],
            env={**os.environ, **own, "PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until("up is ready", lambda: b"Ctrl-C" in log.read_bytes() or up.poll() is not None, timeout_s=60)
        children = psutil.Process(up.pid).children(recursive=True)
        answer = Tagmill(tmp_path, own)("enqueue", "退货地址是哪里", "-S", "shop", "--wait", "30", "--json")
        assert answer.code == 0, answer.err
    finally:
        if end == "shutdown":
            tell_workers_to_end(own)
        else:
            up.send_signal(end)
        try:
            up.wait(60)
        finally:
            up.kill()
            up.wait()
    assert up.returncode == 0, log.read_text()
    assert ("was told to end, and ended" in log.read_text()) == (end == "shutdown")
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    with pytest.raises(redis.ConnectionError):
        redis.Redis(port=port).ping()


def tell_workers_to_end(environ):
    """As `celery control shutdown` does."""
    with make_app(load(environ=environ).settings) as client:
        client.control.shutdown()


def test_a_redis_that_evicts_is_refused(server, tagmill):
    client = redis.Redis(port=server.port)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        done = tagmill("check", "--no-model", "--json")
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert done.code == 3
    assert "evicts queued messages; expected noeviction" in done.out


def test_the_queue_is_measured_beside_plain_celery(tagmill):
    done = tagmill("bench", "queue", "--messages", "200", "--rounds", "1", "--brokers", "redis", "--json")
    assert done.code == 0, done.err
    [figures] = done.rows
    assert all(figures["redis"][name] > 0 for name in ("plain", "single", "many64"))
