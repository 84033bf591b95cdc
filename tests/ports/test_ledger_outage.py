"""A ledger whose database fails says so without a secret, and the same batch can be written again."""

import traceback

import pytest

from ledger.database import open_database
from ledger.dead import DeadLedger, DeadRow
from ledger.tags import TagLedger, TagRow
from ledger.upgrade import upgrade
from tagging.errors import StoreUnavailable
from tests.answers import LABELS, TEXT, stored
from tests.servers import HOST, PostgresServer, free_port

BATCH = {ref: [TagRow.of(stored(ref).answer)] for ref in ("T-1", "T-2")}
LETTER = DeadRow(id="a", task="t", queue="q", reason="r", attempts=1, payload=TEXT)


def test_while_postgresql_is_gone_a_write_fails_and_afterwards_it_works(
    postgres_server: PostgresServer, postgres_database
):
    tags, dead = TagLedger(postgres_database), DeadLedger(postgres_database)
    tags.write({"T-1": BATCH["T-1"]})
    postgres_server.kill()
    with pytest.raises(StoreUnavailable):
        tags.write(BATCH)
    with pytest.raises(StoreUnavailable):
        dead.park([LETTER])
    with pytest.raises(StoreUnavailable):
        tags.by_ref("T-1")
    postgres_server.start()
    assert tags.write(BATCH).changed == 1
    assert [len(tags.by_ref(ref)) for ref in ("T-1", "T-2")] == [1, 1]


def test_the_password_is_in_no_error(sqlite_url):
    url = f"postgresql://tagmill:hunter2@{HOST}:{free_port()}/tagmill"
    with pytest.raises(StoreUnavailable) as failed:
        upgrade(url)
    assert "***" in str(failed.value)
    assert "hunter2" not in "".join(traceback.format_exception(failed.value))


def test_what_a_customer_wrote_is_in_no_error(database):
    with database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE tags")
        connection.exec_driver_sql("DROP TABLE dead_letters")
    with pytest.raises(StoreUnavailable) as write:
        TagLedger(database).write(BATCH)
    with pytest.raises(StoreUnavailable) as park:
        DeadLedger(database).park([LETTER])
    said = "".join(traceback.format_exception(write.value) + traceback.format_exception(park.value))
    assert not [word for word in (TEXT, *LABELS) if word in said]


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / "notes.db").write_text("these are my notes, and they are longer than a header is" * 20)
    with pytest.raises(StoreUnavailable, match="file is not a database"):
        upgrade(f"sqlite:///{tmp_path}/notes.db")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot make the folder"):
        open_database(f"sqlite:///{tmp_path}/file/tagmill.db")
