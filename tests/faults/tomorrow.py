"""The version after this one, as far as a worker shows it: ``celery -A tests.faults.tomorrow worker``.

It is today's code, to which importing this module adds what a next version may bring: version 2.0 of the contract, in
which a text is called ``body``, beside today's; and one more migration, with a table, and columns of the tables that
today's workers write. Importing it before anything opens the ledger is what makes a process a later one.
"""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from alembic.script import ScriptDirectory

from ledger import upgrade
from tagging import messages

MAJOR: Final = "2.0"

MIGRATION: Final = '''
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make what today's programs do not know."""
    op.create_table("moods", sa.Column("id", sa.Text, primary_key=True), sa.Column("mood", sa.Text, nullable=False))
    for table in ("tags", "intake", "dead_letters"):
        op.add_column(table, sa.Column("mood", sa.Text))
        op.add_column(table, sa.Column("moods", sa.Integer, nullable=False, server_default="0"))
'''


def _learn_major() -> None:
    today = messages._validate

    def validate(model: Any, body: object) -> Any:
        return today(model, _as_today(body))

    messages._validate = validate


def _as_today(body: object) -> object:
    if not isinstance(body, dict) or body.get("schema_version") != MAJOR:
        return body
    rest = {name: value for name, value in body.items() if name != "body"}
    return {**rest, "schema_version": messages.SCHEMA_VERSION, "text": body["body"]}


def _learn_migration() -> None:
    folder = Path(mkdtemp(prefix="tomorrow-", dir=Path.cwd())) / "migrations"
    shutil.copytree(upgrade._MIGRATIONS, folder)
    before = ScriptDirectory(str(folder)).get_current_head() or ""
    revision = f"{int(before) + 1:04}"
    (folder / "versions" / f"v{revision}_moods.py").write_text(MIGRATION.format(revision=revision, before=before))
    upgrade._MIGRATIONS = folder  # type: ignore[misc]  # a constant, of another version


_learn_major()
_learn_migration()

from workers.app import app  # noqa: E402  # an app of what is there now

__all__ = ["app"]
