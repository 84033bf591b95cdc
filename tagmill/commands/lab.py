"""``tagmill lab``: offline tools for people who choose models and labels."""

import json
from pathlib import Path

import click


@click.group()
def command() -> None:
    """Train and evaluate models offline."""


@command.command("train-demo")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("demo_model"), show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--minutes", type=float, default=None, help="Stop after so many minutes; default: the full schedule.")
@click.option("--threads", type=click.IntRange(1), default=None, help="CPU threads; default: all.")
def train_demo(out: Path, seed: int, minutes: float | None, threads: int | None) -> None:
    """Train the demo model from scratch on lab/corpus and write it, with its model card, to --out."""
    from lab.train_demo import train

    figures = train(out, seed=seed, minutes=minutes, threads=threads, echo=lambda line: click.echo(line, err=True))
    click.echo(json.dumps(figures, ensure_ascii=False, indent=2))


@command.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
def evaluate(checkpoint: Path) -> None:
    """Figures of CHECKPOINT, a folder in the demo model's format, on the corpus's dev split, as JSON."""
    from dataclasses import asdict

    from lab.evaluate import evaluate as figures_of

    click.echo(json.dumps({name: asdict(row) for name, row in figures_of(checkpoint).items()}, indent=2))
