"""A database is brought to the newest schema, by one of those who try, and the migrations make what the tables say."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import ledger
from ledger.database import open_database
from ledger.schema import metadata
from ledger.tags import TagLedger, TagRow
from ledger.upgrade import upgrade
from tagging.errors import SettingsError, StoreUnavailable
from tests.answers import stored

ROOT = Path(ledger.__file__).parent.parent


def test_the_migrations_make_what_the_tables_say(database):
    with database.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_again_changes_nothing(database, database_url):
    TagLedger(database).write({"a": [TagRow.of(stored().answer)]})
    upgrade(database_url)
    assert len(TagLedger(database).by_ref("T-1")) == 1


def test_several_processes_at_once_migrate_once(database_url):
    program = f"from ledger.upgrade import upgrade; upgrade({database_url!r})"
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], errors
    database = open_database(database_url)
    with database.transaction() as connection:
        assert "tags" in sa.inspect(connection).get_table_names()
    database.close()


def test_a_schema_from_the_future_is_refused_with_words(database, database_url):
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match="schema 9999 is newer than this version knows"):
        upgrade(database_url)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(database_url):
    database = open_database(database_url)
    with database.transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE dead_letters (id int)")  # in the way of the second table
    with pytest.raises(StoreUnavailable):
        upgrade(database_url)
    with database.transaction() as connection:
        assert sa.inspect(connection).get_table_names() == ["dead_letters"]
    database.close()


def test_sqlite_is_durable_and_lets_readers_read_while_one_writes(sqlite_database):
    with sqlite_database.transaction() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]  # 2 is FULL
