"""The version before this one, as far as a worker shows it: ``celery -A tests.faults.yesterday worker``.

It is today's code, from which importing this module takes what the newest version of the contract and of the ledger
brought: contract 1.0 knows no ``long_text`` and no ``overlap``, and the newest migration is not there. Importing it
before anything else opens the ledger is what makes a process an earlier one.
"""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from alembic.script import ScriptDirectory

from ledger import upgrade
from tagging import messages
from tagging.errors import InvalidMessage

UNKNOWN: Final = ("long_text", "overlap")
"""The fields that contract 1.1 brought."""


def _forget_fields() -> None:
    today = messages._parse

    def parse(model: Any, body: object, *, lenient: bool) -> Any:
        unknown = [name for name in UNKNOWN if isinstance(body, dict) and name in body]
        if unknown and not lenient:
            raise InvalidMessage("; ".join(f"{name}: unknown field" for name in unknown))
        return today(model, _without(unknown, body), lenient=lenient)

    messages._MINOR = 0  # type: ignore[misc]  # a constant, of another version
    messages._parse = parse


def _without(names: list[str], body: Any) -> Any:
    return {name: value for name, value in body.items() if name not in names} if names else body


def _forget_migration() -> None:
    folder = Path(mkdtemp(prefix="tagmill-yesterday-")) / "migrations"
    shutil.copytree(upgrade._MIGRATIONS, folder)
    scripts = ScriptDirectory(str(folder))
    newest = scripts.get_revision(scripts.get_current_head() or "head")
    Path(newest.path).unlink()
    upgrade._MIGRATIONS = folder  # type: ignore[misc]  # a constant, of another version


_forget_fields()
_forget_migration()

from workers.app import app  # noqa: E402  # an app of what is left

__all__ = ["app"]
