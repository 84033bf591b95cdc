"""``tagmill bench``: measurements that print JSON."""

import json
import sys

import click


@click.group()
def command() -> None:
    """Measure the queue."""


@command.command()
@click.option("--messages", type=click.IntRange(200), default=4000, show_default=True, help="Texts of each run.")
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Interleaved; medians are printed."
)
@click.option("--brokers", default="redis,rabbitmq", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def queue(messages: int, rounds: int, brokers: str, as_json: bool) -> None:
    """Texts a second through real brokers with an engine that costs nothing, beside plain Celery in the same run."""
    from benchmarks.queue import run

    figures = run(
        messages=messages, rounds=rounds, brokers=brokers.split(","), echo=lambda line: click.echo(line, err=True)
    )
    if as_json:
        click.echo(json.dumps(figures))
        return
    for broker, row in figures.items():
        click.echo(f"{broker}: {row if row is None else json.dumps(row)}")
    sys.exit(0)
