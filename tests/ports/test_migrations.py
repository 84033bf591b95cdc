"""A database is brought to the newest schema, by one of those who try, and the migrations make what the tables say."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import ledger
from ledger.database import Database, open_database
from ledger.schema import metadata
from ledger.tags import TagLedger, TagRow
from ledger.upgrade import refuse_newer, upgrade
from tagging.errors import SettingsError, StoreUnavailable
from tests.answers import stored
from tests.commands import Tagmill

ROOT = Path(ledger.__file__).parent.parent
SCRIPTS = ScriptDirectory(str(ROOT / "ledger" / "migrations"))


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


def test_a_newer_schema_of_the_same_series_is_taken_as_it_is(database, database_url):
    pretend_schema(database, "0099")
    assert upgrade(database_url) == "0099"
    TagLedger(database).write({"a": [TagRow.of(stored().answer)]})
    assert len(TagLedger(database).by_ref("T-1")) == 1


def test_what_must_leave_no_table_out_refuses_a_newer_schema(database):
    refuse_newer(database)
    pretend_schema(database, "0099")
    with pytest.raises(SettingsError, match="schema 0099 has tables that this version does not know"):
        refuse_newer(database)


def test_nothing_is_erased_from_a_newer_schema(sqlite_database, sqlite_url, tmp_path):
    TagLedger(sqlite_database).write({"a": [TagRow.of(stored().answer)]})
    pretend_schema(sqlite_database, "0099")
    ran = Tagmill(tmp_path, {"TAGMILL_LEDGER__URL": sqlite_url})("erase", "helpdesk", "T-1", "--yes")
    assert (ran.code, "start the newer version" in ran.err) == (2, True)
    assert len(TagLedger(sqlite_database).by_ref("T-1")) == 1


def test_a_newer_series_is_refused_with_words(database, database_url):
    pretend_schema(database, "0101")
    with pytest.raises(SettingsError, match="schema 0101 is newer than this version can work with"):
        upgrade(database_url)


def test_a_migration_within_a_series_only_adds(database_url):
    database = open_database(database_url)
    numbers = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
    with database.writing() as connection:
        config = Config()
        config.set_main_option("script_location", SCRIPTS.dir)
        config.attributes["connection"] = connection
        before: dict[str, dict[str, Any]] = {}
        for number in numbers:
            command.upgrade(config, number)
            after = tables_in(connection)
            assert before.keys() <= after.keys(), f"{number} drops a table"
            for name, columns in before.items():
                assert in_the_way(columns, after[name]) == [], f"of {name}, {number} begins another series"
            before = after
    database.close()


def tables_in(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """Each table's columns by name."""
    inspector = sa.inspect(connection)
    return {name: {c["name"]: c for c in inspector.get_columns(name)} for name in inspector.get_table_names()}


def in_the_way(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The columns that keep a program from working which knows those of before only."""
    gone = [name for name in before if name not in after]
    changed = [
        name
        for name, column in before.items()
        if name in after
        and (str(column["type"]), column["nullable"]) != (str(after[name]["type"]), after[name]["nullable"])
    ]
    wanted = [name for name, c in after.items() if name not in before and not c["nullable"] and c["default"] is None]
    return [*gone, *changed, *wanted]


def pretend_schema(database: Database, number: str) -> None:
    """Leave the database as a later version of this program might."""
    with database.transaction() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{number}'")


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
