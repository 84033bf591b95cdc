"""``tagmill dead``: what could not be done."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from tagging.errors import InvalidMessage
from tagging.names import QUEUE_OF_TASK
from tagging.settings import load
from tagging.wording import counted
from tagmill.ledgers import open_ledgers

if TYPE_CHECKING:
    from ledger.dead import DeadLedger, ParkedLetter


@click.group()
def command() -> None:
    """List, show, requeue or drop what could not be done."""


@command.command("list")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--task", default=None, help="Only this task's, e.g. tagmill.tag_ticket.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(limit: int, task: str | None, as_json: bool) -> None:
    """List dead letters, newest first."""
    with open_ledgers(load().settings) as ledgers:
        dead = ledgers.dead
        for letter in dead.list(limit, task=task):
            if as_json:
                click.echo(json.dumps(_shown(letter), ensure_ascii=False))
            else:
                click.echo(f"{letter.id}  {letter.parked_at:%Y-%m-%d %H:%M:%S}  {letter.task}  {letter.reason}")
        click.echo(counted(dead.count(task), "dead letter"), err=True)


@command.command()
@click.argument("id_")
def show(id_: str) -> None:
    """Show one dead letter whole, its payload included; the beginning of its id is enough."""
    with open_ledgers(load().settings) as ledgers:
        letter = _find(ledgers.dead, id_)
        click.echo(json.dumps({**_shown(letter), "payload": letter.payload}, ensure_ascii=False, indent=2))


@command.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every dead letter.")
def requeue(ids: Sequence[str], every: bool) -> None:
    """Put dead letters back on their queues, under their own ids.

    A letter leaves this list only once the broker has its message. One whose payload is no message stays: exit 1.
    """
    from producers.publisher import Publisher

    settings = load().settings
    publisher = Publisher(settings)
    with open_ledgers(settings) as ledgers:
        ready, refused = [], []
        for letter in _chosen(ledgers.dead, ids, every):
            try:
                ready.append((letter.task, _message(letter), letter.id))
            except InvalidMessage as e:
                refused.append(f"{letter.id}: {e}")
        published = [id_ for _, _, id_ in ready]
        with ledgers.dead.take(published):
            publisher.publish_all(ready)
        now = datetime.now(UTC)
        again_at = now + timedelta(seconds=settings.intake.sweep_after_s)
        ledgers.intake.published(published, now=now, again_at=again_at)
    for line in refused:
        click.echo(line, err=True)
    click.echo(f"{len(ready)} requeued, {len(refused)} refused")
    sys.exit(1 if refused else 0)


@command.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every dead letter.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(ids: Sequence[str], every: bool, yes: bool) -> None:
    """Forget dead letters for good."""
    with open_ledgers(load().settings) as ledgers:
        dead = ledgers.dead
        chosen = [letter.id for letter in _chosen(dead, ids, every)]
        if chosen and not yes:
            click.confirm(f"forget {counted(len(chosen), 'dead letter')} for good?", abort=True)
        click.echo(f"{dead.drop(chosen)} dropped")


def _chosen(dead: "DeadLedger", ids: Sequence[str], every: bool) -> list["ParkedLetter"]:
    if bool(ids) == every:
        raise click.UsageError("name the ids, or say --all")
    return dead.list(dead.count() or 1) if every else [_find(dead, id_) for id_ in ids]


def _find(dead: "DeadLedger", id_: str) -> "ParkedLetter":
    letter = dead.get(id_)
    if letter is None:
        raise click.ClickException(f"no dead letter {id_!r}; `tagmill dead list` shows them")
    return letter


def _message(letter: "ParkedLetter") -> dict[str, Any]:
    """The message inside a letter."""
    if letter.task not in QUEUE_OF_TASK:
        raise InvalidMessage(f"no task {letter.task!r} here")
    if not isinstance(letter.message, dict):
        raise InvalidMessage("its payload is no message; `tagmill dead show` prints it")
    return letter.message


def _shown(letter: "ParkedLetter") -> dict[str, Any]:
    return {
        "id": letter.id,
        "task": letter.task,
        "queue": letter.queue,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "parked_at": letter.parked_at.isoformat(),
    }
