"""``tagmill labels``: the label sets of this deployment."""

import json

import click

from tagging.labels import LabelBook, near_duplicates
from tagging.settings import load


@click.group()
def command() -> None:
    """List the label sets."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """Every label set with its labels, and those that a model can hardly tell apart."""
    loaded = load()
    for label_set in LabelBook.load(loaded.config_dir / "labels", max_labels=loaded.settings.labels.max_per_set):
        if as_json:
            click.echo(
                json.dumps(
                    {"name": label_set.name, "labels": label_set.labels, "multi_label": label_set.multi_label},
                    ensure_ascii=False,
                )
            )
            continue
        how = "each by itself" if label_set.multi_label else "one of"
        click.echo(f"{label_set.name}: {how} {', '.join(label_set.labels)}")
        for a, b in near_duplicates(label_set.labels):
            click.echo(f"  {a!r} and {b!r} are near-duplicates; consider merging them", err=True)
