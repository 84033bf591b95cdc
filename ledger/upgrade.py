"""Brings a database to the schema of this version, or finds that a newer version has been here.

A schema's number is its series and its place in it: 0005 is the fifth of series 00. Within a series migrations only
add, so that programs of an earlier version go on, and may be started, while others of the next one are there already.
What an earlier program could not work with begins the next series, 0101. ADR-0021.
"""

from pathlib import Path
from threading import Lock
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from ledger.database import Database, open_database
from tagging.errors import SettingsError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 7_382_214_916  # any number of our own: who holds it on PostgreSQL may migrate
_LOCK_TIMEOUT_S: Final = 30
_SERIES_DIGITS: Final = 2
_REMEDY: Final = "start the newer version"
_alembic = Lock()  # its environment is one for the whole process


def upgrade(url: str) -> str:
    """Migrate the database at this URL to the newest schema; nothing happens where it is there already, or further.

    Several processes may do so at once: one migrates, the others wait for it and find nothing to do.

    Returns:
        The database's schema where it is newer than any that this version knows, and of the same series; else nothing.

    Raises:
        SettingsError: The URL is wrong, or a newer version of this program began another series of schemas.
        StoreUnavailable: The database failed; its schema is as it was.
    """
    database = open_database(url)
    try:
        with _alembic, database.writing() as connection:
            _lock(connection)
            return _migrate(database, connection)
    finally:
        database.close()


def refuse_newer(database: Database) -> None:
    """Return where this version knows every table: what has to leave none out asks first.

    Raises:
        SettingsError: A newer version of this program migrated the database.
        StoreUnavailable: The database failed.
    """
    with database.transaction() as connection:
        if newer := _newer(connection, ScriptDirectory.from_config(_config())):
            raise SettingsError(
                [f"{database}: its schema {newer} has tables that this version does not know; {_REMEDY}"]
            )


def _lock(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Until the end of the transaction. The time limit also keeps a migration that waits for a table from
        # holding up everyone who comes after it.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _migrate(database: Database, connection: sa.Connection) -> str:
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head() or ""
    newer = _newer(connection, scripts)
    if not newer:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    elif _series(newer) != _series(newest):
        raise SettingsError(
            [f"{database}: its schema {newer} is newer than this version can work with ({newest}); {_REMEDY}"]
        )
    return newer


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _newer(connection: sa.Connection, scripts: ScriptDirectory) -> str:
    """The database's schema where this version does not know it; otherwise empty."""
    known = {script.revision for script in scripts.walk_revisions()}
    found = MigrationContext.configure(connection).get_current_heads()
    return next((revision for revision in found if revision not in known), "")


def _series(revision: str) -> str:
    return revision[:_SERIES_DIGITS]
