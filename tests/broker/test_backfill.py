"""A backfill gives every row its answer once, in order, through a real worker; killed: ``tests/guarantees``."""

import csv
import gzip
import json
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.broker.backfill_desk import Desk, desk_on, lines
from tests.broker.sites import CANARY, LABELS, Broker
from tests.children import background
from tests.commands import Tagmill
from tests.servers import PostgresServer, RabbitServer, RedisServer, server_folder, wait_until


@pytest.fixture(scope="module")
def desk(many_databases: RedisServer) -> Iterator[Desk]:
    """A desk on a Redis with a worker that runs."""
    with desk_on(many_databases) as desk:
        yield desk


@pytest.fixture
def production(
    many_databases: RedisServer, rabbit_server: RabbitServer, postgres_server: PostgresServer
) -> Iterator[Desk]:
    """A desk on RabbitMQ, with a worker that runs and the ledger in PostgreSQL."""
    broker = Broker.on(many_databases, rabbit_server)
    with (
        server_folder("production") as folder,
        closing(broker.site(folder, ledger=postgres_server.url)) as site,
        site.worker().running(),
    ):
        yield Desk(site)


def test_every_row_is_answered_in_its_order_and_a_text_is_asked_once(desk: Desk) -> None:
    done = desk.run(desk.source("order", 100), "--out", "order.out.jsonl")
    assert done.code == 0, done.err
    [report] = done.rows
    assert (report["read"], report["tagged"], report["questions"], report["pairs"]) == (100, 100, 80, 160)
    rows = lines(desk.path("order.out.jsonl"))
    assert [row["n"] for row in rows] == list(range(100))
    assert rows[3]["scores"] == rows[4]["scores"]
    assert all(row["labels"] == list(LABELS) for row in rows)
    assert CANARY not in done.err
    assert report["files"] == {
        "output": "order.out.jsonl",
        "report": str(desk.path("order-labels.report.md")),
        "report_json": str(desk.path("order-labels.report.json")),
    }
    left = json.loads(desk.path("order-labels.report.json").read_text(encoding="utf-8"))
    assert left == {name: value for name, value in report.items() if name != "files"}
    assert desk.path("order-labels.report.md").read_text(encoding="utf-8").startswith("# Backfill order-labels: done")


def test_its_summary_is_all_that_people_see_unless_they_ask_for_more(desk: Desk) -> None:
    source = desk.source("summary", 10)
    done = desk(str(source), "-l", ",".join(LABELS), "--out", "s.csv.gz", "--report", "s.md", "--quiet")
    assert (done.code, done.err) == (0, "")
    said = done.out.splitlines()
    assert said[0].startswith("summary-labels: done after ")
    assert said[1:3] == [
        "10 rows = 10 tagged + 0 cached + 0 rejected + 0 failed", "20 pairs: same text 20 %, computed 80 %",
    ]  # fmt: skip
    assert said[-2:] == ["output: s.csv.gz", "report: s.md"]
    assert desk.path("s.json").exists()
    status = desk("status", "summary-labels")
    assert (status.out.splitlines()[0], status.out.splitlines()[1:4]) == ("summary-labels: done", said[1:4])


TEN = [f"label {i}" for i in range(10)]


def cost(desk: Desk, source: Path, labels: list[str], name: str, *arguments: str) -> tuple[int, int, int]:
    """Questions, pairs that were asked, and pairs that the model computed."""
    done = desk(str(source), "-l", ",".join(labels), "--json", "--job", name, *arguments)
    assert done.code == 0, done.err
    [report] = done.rows
    return report["questions"], report["pairs"], report["computed"]


def test_one_label_more_costs_one_pair_a_text(desk: Desk) -> None:
    source = desk.source("relabel", 40)
    assert cost(desk, source, TEN, "ten", "--out", "ten.jsonl") == (32, 320, 320)
    assert cost(desk, source, [*TEN[:9], "renamed"], "renamed", "--out", "renamed.jsonl") == (32, 320, 32)


def test_after_every_cache_has_forgotten_the_ledger_still_knows_the_other_labels(many_databases: RedisServer) -> None:
    nine, ten = TEN[:9], [*TEN[:9], "gained"]
    with server_folder("relabel") as folder, closing(Broker.on(many_databases, None).site(folder)) as site:
        desk = Desk(site)
        source = desk.source("forgotten", 20)
        with site.worker().running():
            assert cost(desk, source, nine, "nine", "--out", "ledger") == (20, 180, 144)
            assert cost(desk, source, nine, "nine-file", "--out", "nine.jsonl") == (16, 144, 0)
        for out, questions in (("ledger", 20), ("ten.jsonl", 16)):
            with redis.Redis.from_url(site.settings.cache.url) as cache:
                cache.flushdb()
            with site.worker().running():  # another one, which remembers nothing
                asked = cost(desk, source, ten, f"ten-{out}", "--out", out, "--relabel")
            assert asked == (questions, 10 * questions, 16)


def test_rows_that_cannot_be_asked_about_are_given_back_and_can_be_a_source(desk: Desk) -> None:
    source = desk.path("mixed.jsonl")
    source.write_text('{"text": "fine", "n": 1}\n{"text": "   ", "n": 2}\nnonsense\n{"n": 4}\n', encoding="utf-8")
    done = desk.run(source, "--out", "mixed.out.jsonl")
    assert done.code == 1
    [report] = done.rows
    assert report["read"] == 4 == report["tagged"] + report["rejected"]
    assert [row["n"] for row in lines(desk.path("mixed.out.jsonl"))] == [1]
    rejects = lines(desk.path("mixed-labels.rejects.jsonl"))
    assert [row["tagmill_row"] for row in rejects] == [2, 3, 4]
    assert "empty after cleaning" in rejects[0]["tagmill_error"]
    assert (rejects[0]["n"], rejects[1]["tagmill_raw"]) == (2, "nonsense")


def test_a_gzipped_csv_in_gb18030_becomes_a_csv_and_its_rejects_are_a_source(desk: Desk) -> None:
    source = desk.path("desk.csv.gz")
    rows = [
        "id,body,kind",
        "1,包裹还没有到,ticket",
        "2,请帮我查一下物流,email",
        '3,"退款，谢谢"',
        "4,谢谢你们的帮助,comment",
    ]
    source.write_bytes(gzip.compress("\n".join(rows).encode("gb18030")))
    done = desk.run(source, "--out", "desk.out.csv")
    assert (done.code, done.rows[0]["tagged"], done.rows[0]["rejected"]) == (1, 2, 2), done.err
    with desk.path("desk.out.csv").open(encoding="utf-8-sig", newline="") as file:
        out = list(csv.DictReader(file))
    assert [(row["id"], row["body"], row["kind"]) for row in out] == [
        ("1", "包裹还没有到", "ticket"), ("4", "谢谢你们的帮助", "comment"),
    ]  # fmt: skip
    assert all(row["decision"] for row in out)
    again = desk.run(desk.path("desk-labels.rejects.jsonl"), "--kind-column", "", "--out", "again.out.jsonl")
    assert (again.code, again.rows[0]["tagged"], again.rows[0]["rejected"]) == (1, 1, 1), again.err
    [row] = lines(desk.path("again.out.jsonl"))
    assert (row["id"], row["body"], row["kind"]) == ("2", "请帮我查一下物流", "email")


def test_a_table_is_a_source_and_its_job_is_resumed_by_its_name(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.path("desk.db"))) as database, database:
        database.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO tickets VALUES (?, ?)", [(n * 7, f"row {n}") for n in range(1, 31)])
    table = (f"sqlite:///{desk.path('desk.db')}", "--table", "tickets", "--job", "table", "--out", "table.out.jsonl")
    done = desk(*table, "-l", ",".join(LABELS), "--json")
    resumed = desk("resume", "table", "--json")
    assert (done.code, done.rows[0]["tagged"], resumed.rows[0]["read"]) == (0, 30, 30), done.err + resumed.err
    assert [row["id"] for row in lines(desk.path("table.out.jsonl"))] == [n * 7 for n in range(1, 31)]


def test_on_rabbitmq_and_postgresql_it_is_killed_and_goes_on_and_is_undone(production: Desk) -> None:
    source, name = production.source("production", 120), "production"
    arguments = ["-l", ",".join(LABELS), "--job", name, "--out", "ledger"]
    with background(
        [sys.executable, "-m", "tagmill", "backfill", str(source), *arguments, "--max-rate", "100"],
        environ=production.environ,
        log=production.path("production.log"),
        cwd=production.site.folder,
    ) as process:
        wait_until("20 rows are answered", lambda: production.reached(name, 20, process))
        process.kill()
        assert process.wait() == -signal.SIGKILL, production.path("production.log").read_text()
    done = production(str(source), *arguments, "--json")
    assert done.code == 0, done.err
    [report] = done.rows
    assert (report["read"], report["tagged"], report["open"]) == (120, 120, 0)
    assert all(len(production.site.tags(f"production-{number}")) == 1 for number in range(120))
    undone = production("undo", name, "--json")
    assert undone.rows[0]["removed"] == 120, undone.err
    assert not production.site.tags("production-7")


def test_a_job_that_is_paused_ends_and_is_resumed_by_its_name(desk: Desk) -> None:
    source = desk.source("paused", 60)
    slow = ["-l", ",".join(LABELS), "--job", "paused", "--out", "paused.out.jsonl", "--max-rate", "5"]
    with background(
        [sys.executable, "-m", "tagmill", "backfill", str(source), *slow],
        environ=desk.environ,
        log=desk.path("paused.log"),
        cwd=desk.site.folder,
    ) as process:
        wait_until("a row is answered", lambda: desk.reached("paused", 1, process))
        assert desk("pause", "paused").code == 0
        assert process.wait(20) == 1, desk.path("paused.log").read_text()
    assert desk("status", "paused", "--json").rows[0]["state"] == "paused"
    done = desk("resume", "paused", "--json")
    assert done.code == 0, done.err
    assert (done.rows[0]["read"], done.rows[0]["open"]) == (60, 0)
    assert [row["n"] for row in lines(desk.path("paused.out.jsonl"))] == list(range(60))
    assert {row["job"]: row["state"] for row in desk("list", "--json").rows}["paused"] == "done"


def test_what_stands_in_the_ledger_is_not_asked_again(desk: Desk) -> None:
    source = desk.source("known", 20)
    environ = {**desk.environ, "TAGMILL_MODEL__NAME": "fake"}  # as the worker calls its model
    run = Tagmill(desk.site.folder, environ)
    arguments = ("backfill", str(source), "-l", ",".join(LABELS), "--json", "--out", "ledger")
    first = run(*arguments, "--job", "first")
    second = run(*arguments, "--job", "second")
    again = run(*arguments, "--job", "third", "--again")
    assert [(ran.rows[0]["tagged"], ran.rows[0]["cached"]) for ran in (first, second, again)] == [
        (20, 0), (0, 20), (20, 0),
    ]  # fmt: skip
    assert desk.site.tags("known-7")[0].answer["labels"] == list(LABELS)


def test_a_dry_run_says_what_it_would_come_to_and_leaves_tags_as_they_are(desk: Desk) -> None:
    source = desk.source("dry", 50)
    told = desk.run(source, "--dry-run", "--sample", "20")
    assert told.code == 0, told.err
    [rehearsal] = told.rows
    assert (rehearsal["rows"], rehearsal["sampled"], rehearsal["pairs"]) == (50, 20, 100)
    assert (rehearsal["standing"], rehearsal["changed"]) == (0, 0)
    assert rehearsal["tokens"] > 0
    assert not desk.site.tags("dry-7")
    assert not (desk.site.folder / "jobs" / "dry-labels.job").exists()
    assert desk.run(source, "--out", "ledger").code == 0
    [after] = desk.run(source, "--dry-run", "--sample", "20").rows
    assert (after["standing"], after["changed"]) == (20, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        ["-S", "nobody"],
        ["-l", "a,A"],
        ["-l", "a,b", "--out", "no/where.csv"],
        ["-l", "a,b", "--out", "out.xlsx"],
        ["-l", "a,b", "--text-column", "nothing"],
        [],
    ],
)
def test_a_wrong_command_ends_with_2_before_anything_is_read(desk: Desk, wrong: list[str]) -> None:
    refused = desk(str(desk.source("wrong", 1)), *wrong)
    assert (refused.code, "Error:" in refused.err) == (2, True), refused.err


def test_undo_takes_its_tags_back(desk: Desk) -> None:
    assert desk.run(desk.source("undone", 10), "--out", "ledger", "--job", "undone").code == 0
    assert desk.site.tags("undone-3")
    undone = desk("undo", "undone", "--json")
    assert undone.rows == [{"removed": 10, "kept": 0}], undone.err
    assert not desk.site.tags("undone-3")
    again = desk("resume", "undone")
    assert (again.code, "was undone" in again.err) == (2, True)


def test_a_job_that_is_cancelled_is_not_run_again(desk: Desk) -> None:
    source = desk.source("cancelled", 5)
    assert desk.run(source, "--job", "cancelled", "--out", "c.jsonl").code == 0
    assert desk("cancel", "cancelled").code == 0
    refused = desk.run(source, "--job", "cancelled", "--out", "c.jsonl")
    assert (refused.code, "was cancelled" in refused.err) == (2, True)


def test_a_job_is_run_by_one_process_and_is_about_one_thing(desk: Desk) -> None:
    source = desk.source("locked", 5)
    assert desk.run(source, "--job", "locked", "--out", "l.jsonl").code == 0
    with closing(desk.job("locked")) as job, job.locked():
        held = desk.run(source, "--job", "locked", "--out", "l.jsonl")
    other = desk.run(desk.source("locked2", 5), "--job", "locked", "--out", "l.jsonl")
    assert (held.code, "is being run by another process" in held.err) == (1, True)
    assert (other.code, "begun with another source" in other.err) == (1, True)


def test_without_a_broker_it_ends_with_3_and_goes_on_later(desk: Desk) -> None:
    source = desk.source("away", 5)
    environ = {**desk.environ, "TAGMILL_BROKER__URL": "redis://127.0.0.1:1/0"}
    arguments = ("backfill", str(source), "-l", "a,b", "--out", "away.out.jsonl", "--json")
    assert Tagmill(desk.site.folder, environ)(*arguments).code == 3
    done = Tagmill(desk.site.folder, desk.environ)(*arguments)
    assert (done.code, done.rows[0]["tagged"]) == (0, 5), done.err
