"""A table or a query of a database is a source of backfills, read page by page behind its key."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from producers.backfill.rows import Columns, Rejected
from producers.backfill.sources import open_source, tables
from tagging.errors import SourceRefused

ROWS = 23
"""With pages of five: some whole ones, and one that is not full."""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(tables, "_PAGE_ROWS", 5)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        (tmp_path / "desk.db").touch()
        return f"sqlite:///{tmp_path}/desk.db"
    found: str = request.getfixturevalue("postgres_server").url
    return found


@pytest.fixture
def desk(url) -> Iterator[sa.Engine]:
    """A help desk's database."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE tickets (id INTEGER PRIMARY KEY, code VARCHAR(10), body TEXT, share REAL)")
        )
        connection.execute(
            sa.text("INSERT INTO tickets VALUES (:id, :code, :body, 0.5)"),
            [{"id": n * 3, "code": f"c{n:02}", "body": f"第{n}行: 100% 'ok'"} for n in range(1, ROWS + 1)],
        )
    yield engine
    engine.dispose()


def read(url: str, after: int = 0, **named):
    return [*open_source(url, **named).records(after=after)]


def test_a_row_has_its_columns_in_order_and_the_number_of_its_key(desk, url):
    first, *_, last = read(url, table="tickets")
    assert (first.number, first.ref, first.text) == (3, "3", "第1行: 100% 'ok'")
    assert dict(first.columns) == {"id": 3, "code": "c01", "body": "第1行: 100% 'ok'", "share": 0.5}
    assert last.number == 3 * ROWS


@pytest.mark.parametrize(
    "asked",
    [
        {"table": "tickets"},
        {"table": "tickets", "key": "code"},
        {"query": "SELECT code, body FROM tickets WHERE body LIKE '%: 100%' ORDER BY body;", "key": "code"},
        {"query": "SELECT id, body FROM tickets", "key": "id"},
    ],
    ids=["table", "table-by-code", "query-by-code", "query"],
)
def test_reading_on_gives_what_reading_whole_gives(desk, url, asked):
    whole = read(url, **asked)
    assert [row.text for row in whole] == [f"第{n}行: 100% 'ok'" for n in range(1, ROWS + 1)]
    for done in (0, 1, 4, 5, 6, ROWS - 1, ROWS):
        assert read(url, after=whole[done - 1].number if done else 0, **asked) == whole[done:]


def test_rows_that_are_deleted_meanwhile_shift_none(desk, url):
    source = open_source(url, table="tickets")
    whole = [*source.records()]
    with desk.begin() as connection:
        connection.execute(sa.text("DELETE FROM tickets WHERE id <= 30"))
    assert [*source.records(after=30)] == whole[10:]


def test_a_row_without_a_text_is_rejected_with_its_columns(desk, url):
    with desk.begin() as connection:
        connection.execute(sa.text("UPDATE tickets SET body = NULL WHERE id = 6"))
    refused = read(url, table="tickets")[1]
    assert refused == Rejected(
        number=6,
        reason="body: expected a text, got nothing",
        columns={"id": 6, "code": "c02", "body": None, "share": 0.5},
    )


def test_times_are_read_as_text(desk, url):
    at = datetime(2026, 11, 25, 14, 30, tzinfo=UTC)
    with desk.begin() as connection:
        connection.execute(sa.text("CREATE TABLE comments (id INTEGER PRIMARY KEY, text TEXT, at TIMESTAMP)"))
        connection.execute(sa.text("INSERT INTO comments VALUES (1, 'a', :at)"), {"at": at.replace(tzinfo=None)})
    [row] = read(url, table="comments")
    assert row.columns["at"] == "2026-11-25T14:30:00"


def test_an_empty_table_has_no_rows(desk, url):
    with desk.begin() as connection:
        connection.execute(sa.text("DELETE FROM tickets"))
    assert read(url, table="tickets") == []


@pytest.mark.parametrize(
    ("change", "asked", "said"),
    [
        ("", {"table": "nothing"}, "no such table; there are: tickets"),
        ("", {"table": "tickets", "key": "nothing"}, "no column 'nothing' for --key; it has: id, code, body, share"),
        ("", {"table": "tickets", "columns": Columns(text="x")}, "no column 'x'; it has: id, code, body, share"),
        ("", {"query": "SELECT nothing FROM tickets", "key": "id"}, "nothing"),
        ("", {"table": "tickets", "key": "share"}, "several rows have the same share"),
        ("UPDATE tickets SET code = NULL WHERE id = 60", {"table": "tickets", "key": "code"}, "rows without code"),
        ("UPDATE tickets SET id = -1 WHERE id = 60", {"table": "tickets"}, "id is not a whole number from 1"),
        ("CREATE TABLE notes (text TEXT)", {"table": "notes"}, "its primary key is of 0 columns"),
    ],
)
def test_what_cannot_be_read_as_described_is_refused(desk, url, change, asked, said):
    if change:
        with desk.begin() as connection:
            connection.execute(sa.text(change))
    with pytest.raises(SourceRefused) as refused:
        open_source(url, **asked)
    assert said in str(refused.value)


def test_two_rows_of_one_key_at_the_end_of_a_page_are_noticed(desk, url):
    with desk.begin() as connection:
        connection.execute(sa.text("UPDATE tickets SET code = 'c05' WHERE id = 18"))
    with pytest.raises(SourceRefused, match="several rows have the same code"):
        open_source(url, table="tickets", key="code")


@pytest.mark.parametrize(
    ("spec", "asked", "said"),
    [
        ("sqlite:///nowhere.db", {"table": "t"}, "no such file"),
        ("sqlite:///nowhere.db", {}, "name either a table with --table or a query with --query"),
        ("sqlite:///nowhere.db", {"query": "SELECT 1"}, "with --key"),
        ("sqlite:///nowhere.db", {"table": "t", "encoding": "utf-8"}, "--format and --encoding are for files"),
        ("tickets.csv", {"table": "t"}, "tickets.csv: --table, --query and --key are for databases"),
        ("postgresql://me:hunter2@127.0.0.1:1/desk", {"table": "t"}, "postgresql+psycopg://me:***@127.0.0.1:1/desk t"),
        ("postgresql://me:hunter2@host:port/desk", {"table": "t"}, "not the URL of a database"),
        ("mssql+nothing://me:hunter2@host/desk", {"table": "t"}, "mssql+nothing needs its driver"),
    ],
)
def test_what_is_no_database_is_refused_without_its_password(spec, asked, said):
    with pytest.raises(SourceRefused) as refused:
        open_source(spec, **asked)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SourceRefused, match=r"needs psycopg; install tagmill\[postgres\]"):
        open_source("postgresql://host/desk", table="t")


def test_a_fingerprint_stands_for_what_is_asked_and_not_for_the_password():
    def fingerprint(password: str, table: str) -> str:
        url = sa.make_url(f"postgresql://me:{password}@host/desk")
        return tables.TableSource(url=url, columns=Columns(), table=table, query=None, key=None).fingerprint

    assert fingerprint("old", "t") == fingerprint("new", "t")
    assert fingerprint("old", "t") != fingerprint("old", "u")
