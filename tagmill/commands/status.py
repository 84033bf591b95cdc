"""``tagmill status``: what became of an id or a reference."""

import json
import sys
from typing import Any

import click

from tagmill.commands.enqueue import summary


@click.command()
@click.argument("id_or_ref")
@click.option("--source", default="", help="Look only at this source's documents.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(id_or_ref: str, source: str, as_json: bool) -> None:
    """Say what became of a task id, or which tags stand for a ticket's reference.

    Asks the ledger, then the dead letters, then Celery's results backend. Exit code 1 when nobody knows it.
    """
    found = _look_up(id_or_ref, source or None)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, default=str))
    else:
        _print(id_or_ref, found)
    sys.exit(0 if found["state"] != "UNKNOWN" else 1)


def _look_up(id_or_ref: str, source: str | None) -> dict[str, Any]:
    from tagging.settings import load
    from tagmill.ledgers import open_ledgers

    settings = load().settings
    with open_ledgers(settings) as (tags, dead):
        rows = tags.by_id(id_or_ref) or tags.by_ref(id_or_ref, source)
        if rows:
            return {"state": "TAGGED", "tags": [row.answer for row in rows]}
        if (letter := dead.get(id_or_ref)) is not None:
            return {
                "state": "DEAD",
                "reason": letter.reason,
                "attempts": letter.attempts,
                "parked_at": letter.parked_at,
            }
    return _ask_backend(settings, id_or_ref)


def _ask_backend(settings: Any, task_id: str) -> dict[str, Any]:
    from producers.publisher import Publisher

    result = Publisher(settings).result(task_id)
    try:
        state = result.state
    except Exception as e:  # noqa: BLE001  # any backend, any of its errors
        return {"state": "UNKNOWN", "reason": f"the results backend cannot be reached: {type(e).__name__}"}
    if state == "PENDING":  # Celery's word for an id that it has never heard of as well
        return {"state": "UNKNOWN", "reason": "not tagged, not parked; it may still wait in a queue"}
    if state == "SUCCESS":
        return {"state": state, "tags": [result.result]}
    return {"state": state, "reason": str(result.result)}


def _print(id_or_ref: str, found: dict[str, Any]) -> None:
    click.echo(f"{id_or_ref}  {found['state']}  {found.get('reason', '')}".rstrip())
    for answer in found.get("tags", []):
        if "answers" in answer:
            click.echo(f"  {answer['done']} done, {answer['failed']} failed")
            continue
        name = answer["label_set"] or ", ".join(answer["labels"][:4])
        click.echo(f"  {answer['source']}/{answer['ref']} r{answer['revision']}  [{name}]  {summary(answer)}")
