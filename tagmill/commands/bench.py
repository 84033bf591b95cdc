"""``tagmill bench``: measurements that print JSON."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import click


class Measurements(click.Group):
    """Lists what each of them measures in whole sentences: which one to choose depends on how they end."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help text."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, (found.help or "").partition("\n\n")[0]) for name, found in commands.items() if found]
            )


@click.group(cls=Measurements)
def command() -> None:
    """Measure the queue, a worker, the HTTP API, backfills and the engine, beside what they are to be held against.

    The servers are its own, on free ports. A busy machine takes longer, and moves CPU times less than others. Figures
    go to standard output, progress to standard error.
    """


@command.command()
@click.option("--messages", type=click.IntRange(200), default=4000, show_default=True, help="Texts of each run.")
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Interleaved; medians are printed."
)
@click.option("--brokers", default="redis,rabbitmq", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def queue(messages: int, rounds: int, brokers: str, as_json: bool) -> None:
    """Texts a second through real brokers, beside plain Celery in the same run; some minutes.

    With an engine that costs nothing.
    """
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


@command.command()
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--size", type=click.Choice(["base", "large", "demo"]), default="base", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads of each contender.")
@click.option("--requests", type=click.IntRange(60), default=400, show_default=True, help="Of the workload.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def engine(device: str, size: str, threads: int, requests: int, as_json: bool) -> None:
    """Pairs a second of this engine beside transformers' pipeline, on random weights; with base about 20 minutes.

    Padded code is a third rival. The time is that of two cores.
    """
    from benchmarks.engine import Plan, run

    plan = Plan(device=device, size=size, threads=threads, requests=requests)
    figures = run(plan, echo=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, row in figures["rows"].items():
        click.echo(
            f"{name:<18} {row['ratio']:>6.2f} x {row['pairs_per_s']:>9,.1f} pairs/s  {row['peak_share']:>5.0%} of GEMM"
            f"  {row['max_abs_diff']:>8.1e} off  {row['rss_mb']:>6,} MB"
        )


@command.command()
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--size", type=click.Choice(["base", "large", "demo"]), default="demo", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads of the engine.")
@click.option("--texts", type=click.IntRange(100), default=1000, show_default=True, help="Of each run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def worker(device: str, size: str, precision: str, threads: int, texts: int, as_json: bool) -> None:
    """How much of its engine's speed a worker keeps, through a real Redis, one text a message; some minutes."""
    from benchmarks.worker import Plan, run

    plan = Plan(device=device, size=size, precision=precision, threads=threads, texts=texts)
    figures = run(plan, echo=lambda line: click.echo(line, err=True))
    _show(figures, as_json=as_json)


@command.command()
@click.option("--messages", type=click.IntRange(100), default=5000, show_default=True, help="Accepted one a request.")
@click.option("--waits", type=click.IntRange(1), default=10, show_default=True, help="Answers that each caller awaits.")
@click.option("--callers", default="50,500", show_default=True, help="How many wait at once, run by run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def http(messages: int, waits: int, callers: str, as_json: bool) -> None:
    """How many messages the HTTP API accepts and how long callers wait; one to three minutes.

    With an engine that costs nothing.
    """
    from benchmarks.http import Plan, run

    plan = Plan(messages=messages, waits=waits, callers=tuple(map(int, callers.split(","))))
    _show(run(plan, echo=lambda line: click.echo(line, err=True)), as_json=as_json)


@command.command()
@click.option("--batches", type=click.IntRange(1000), default=100_000, show_default=True)
@click.option("--precision", default="float32", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def soak(batches: int, precision: str, as_json: bool) -> None:
    """Whether the memory of the demo model's engine grows over many batches of ever other sizes; about half an hour.

    2,000 batches took 42 s of one core (Zen 4).
    """
    from benchmarks.soak import run

    figures = run(batches=batches, precision=precision, echo=lambda line: click.echo(line, err=True))
    _show(figures, as_json=as_json)


@command.command()
@click.option("--rows", type=click.IntRange(1000), default=200_000, show_default=True)
@click.option("--repeated", type=click.FloatRange(0, 1, max_open=True), default=0.2, show_default=True, help="Share.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def backfill(rows: int, repeated: float, as_json: bool) -> None:
    """Rows a second and the memory of a backfill through a real Redis, with an engine that costs nothing."""
    from benchmarks.backfill import Plan, run

    figures = run(Plan(rows=rows, repeated=repeated), echo=lambda line: click.echo(line, err=True))
    _show(figures, as_json=as_json)


@command.command("backfill-model")
@click.option("--rows", type=click.IntRange(100), default=20_000, show_default=True, help="Of the backfill.")
@click.option("--sample", type=click.IntRange(30), default=300, show_default=True, help="Rows that the loop gets.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads of each engine.")
@click.option("--precision", default="int8", show_default=True, help="Of the worker that the backfill asks.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def backfill_model(rows: int, sample: int, threads: int, precision: str, as_json: bool) -> None:
    """Rows a second of a backfill with the demo model beside a loop over transformers' pipeline, factor by factor."""
    from benchmarks.backfill_model import Plan, run

    plan = Plan(rows=rows, sample=sample, threads=threads, precision=precision)
    _show(run(plan, echo=lambda line: click.echo(line, err=True)), as_json=as_json)


@command.command("backfill-live")
@click.option("--rows", type=click.IntRange(1000), default=10_000, show_default=True, help="Of each backfill.")
@click.option("--pass-ms", type=click.FloatRange(0), default=15.0, show_default=True, help="That a pass takes.")
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Alone and during; medians are printed."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def backfill_live(rows: int, pass_ms: float, rounds: int, as_json: bool) -> None:
    """How long a live ticket waits, alone and during a backfill on the same worker, in turns."""
    from benchmarks.backfill import Plan, run_live

    plan = Plan(rows=rows, repeated=0.0)
    figures = run_live(plan, pass_s=pass_ms / 1000, rounds=rounds, echo=lambda line: click.echo(line, err=True))
    _show(figures, as_json=as_json)


def _show(figures: Mapping[str, Any], *, as_json: bool) -> None:
    lines = (f"{name:<22} {value}" for name, value in figures.items())
    click.echo(json.dumps(figures) if as_json else "\n".join(lines))
