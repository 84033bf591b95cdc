"""``tagmill status``: what became of an id or a reference, and how full the intake is."""

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tagmill.commands.enqueue import summary

if TYPE_CHECKING:
    from ledger.intake import IntakeRow


@click.command()
@click.argument("id_or_ref", required=False)
@click.option("--source", default="", help="Look only at this source's documents.")
@click.option(
    "--max-lag", "max_lag_s", type=click.FloatRange(0), help="Exit with 1 if the intake lags so many seconds."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(id_or_ref: str | None, source: str, max_lag_s: float | None, as_json: bool) -> None:
    """Say what became of a task id, or which tags stand for a ticket's reference; or else how full the intake is.

    Asks the ledger (tags, dead letters, intake), then Celery's results backend. Exit code 1 when nobody knows it.
    """
    if id_or_ref is None:
        found = _overview()
        click.echo(json.dumps(found) if as_json else _line(found))
        sys.exit(1 if max_lag_s is not None and found["lag_s"] > max_lag_s else 0)
    found = _look_up(id_or_ref, source or None)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, default=str))
    else:
        _print(id_or_ref, found)
    sys.exit(0 if found["state"] != "UNKNOWN" else 1)


def _overview() -> dict[str, Any]:
    """How many messages are in each state, and for how long the oldest accepted one has waited to be published."""
    from tagging.settings import load
    from tagmill.ledgers import open_ledgers

    now = datetime.now(UTC)
    with open_ledgers(load().settings) as ledgers:
        since = ledgers.intake.oldest_due(now)
        lag_s = (now - since).total_seconds() if since is not None else 0.0
        return {"intake": ledgers.intake.counts(), "lag_s": round(lag_s, 1), "dead_letters": ledgers.dead.count()}


def _line(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in found["intake"].items()) or "empty"
    return f"intake: {counts}; lag {found['lag_s']:g} s; {found['dead_letters']} dead letters"


def _look_up(id_or_ref: str, source: str | None) -> dict[str, Any]:
    from tagging.settings import load
    from tagmill.ledgers import open_ledgers

    settings = load().settings
    with open_ledgers(settings) as ledgers:
        row = ledgers.intake.get(id_or_ref)
        accepted = [row] if row is not None else ledgers.intake.by_ref(id_or_ref, source)
        intake = [_accepted(one) for one in accepted]
        rows = ledgers.tags.by_id(id_or_ref) or ledgers.tags.by_ref(id_or_ref, source)
        if rows:
            return {"state": "TAGGED", "tags": [row.answer for row in rows], "intake": intake}
        if (letter := ledgers.dead.get(id_or_ref)) is not None:
            return {
                "state": "DEAD",
                "reason": letter.reason,
                "attempts": letter.attempts,
                "parked_at": letter.parked_at,
                "intake": intake,
            }
    if not accepted:
        return {**_ask_backend(settings, id_or_ref), "intake": []}
    newest = accepted[0]
    return {"state": newest.state.upper(), "reason": newest.reason or "", "intake": intake}


def _accepted(row: "IntakeRow") -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state,
        "revision": row.revision,
        "publishes": row.publishes,
        "accepted_at": row.accepted_at.isoformat(),
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
        "reason": row.reason,
    }


def _ask_backend(settings: Any, task_id: str) -> dict[str, Any]:
    from producers.publisher import Publisher

    result = Publisher(settings).result(task_id)
    try:
        state = result.state
    except Exception as e:  # noqa: BLE001  # any backend, any of its errors
        return {"state": "UNKNOWN", "reason": f"the results backend cannot be reached: {type(e).__name__}"}
    if state == "PENDING":  # Celery's word for an id that it has never heard of as well
        return {"state": "UNKNOWN", "reason": "not accepted, not tagged, not parked; it may still wait in a queue"}
    if state == "SUCCESS":
        return {"state": state, "tags": [result.result]}
    return {"state": state, "reason": str(result.result)}


def _print(id_or_ref: str, found: dict[str, Any]) -> None:
    click.echo(f"{id_or_ref}  {found['state']}  {found.get('reason', '')}".rstrip())
    for row in found["intake"]:
        revision = "" if row["revision"] is None else f" r{row['revision']}"
        click.echo(f"  {row['id']}{revision}  {row['state']}, accepted {row['accepted_at']}")
    for answer in found.get("tags", []):
        if "answers" in answer:
            click.echo(f"  {answer['done']} done, {answer['failed']} failed")
            continue
        name = answer["label_set"] or ", ".join(answer["labels"][:4])
        click.echo(f"  {answer['source']}/{answer['ref']} r{answer['revision']}  [{name}]  {summary(answer)}")
