"""``tagmill keys``: who may use the HTTP API."""

import json
import sys
from typing import Any

import click


@click.group()
def command() -> None:
    """Make, list and revoke keys of the HTTP API."""


@command.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["enqueue", "read", "admin"]),
    default=("enqueue", "read"),
    show_default=True,
)
@click.option("--source", default=None, help="May send and see documents of this source only.")
@click.option("--per-minute", type=click.IntRange(1), default=600, show_default=True, help="Requests in a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def create(name: str, scopes: tuple[Any, ...], source: str | None, per_minute: int, as_json: bool) -> None:
    """Make a key and print it: it is shown this once, and kept as a digest."""
    from ledger.keys import KeyLedger
    from tagging.settings import load
    from tagmill.ledgers import open_ledgers

    with open_ledgers(load().settings) as ledgers:
        made = KeyLedger(ledgers.database).create(name, scopes=scopes, source=source, per_minute=per_minute)
    click.echo(json.dumps({"id": made.key.id, "token": made.token}) if as_json else made.token)


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """List the keys, revoked ones too."""
    from ledger.keys import KeyLedger
    from tagging.settings import load
    from tagmill.ledgers import open_ledgers

    with open_ledgers(load().settings) as ledgers:
        keys = KeyLedger(ledgers.database).all()
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "scopes": " ".join(sorted(key.scopes)),
            "source": key.source or "all",
            "per_minute": key.per_minute,
            "created": key.created_at.isoformat(timespec="seconds"),
            "revoked": f"revoked {key.revoked_at.isoformat(timespec='seconds')}" if key.revoked_at else "",
        }
        for key in keys
    ]
    for row in rows:
        click.echo(json.dumps(row) if as_json else "  ".join(str(value) for value in row.values()).rstrip())


@command.command()
@click.argument("id_", metavar="ID")
def revoke(id_: str) -> None:
    """Refuse the key of this ID from now on."""
    from ledger.keys import KeyLedger
    from tagging.settings import load
    from tagmill.ledgers import open_ledgers

    with open_ledgers(load().settings) as ledgers:
        revoked = KeyLedger(ledgers.database).revoke(id_)
    click.echo(f"{id_} is revoked" if revoked else f"no key {id_} that could be revoked", err=not revoked)
    sys.exit(0 if revoked else 1)
