"""``tagmill config``: the settings and where each came from."""

import json

import click

from tagging.settings import leaves, load, masked


@click.group()
def command() -> None:
    """Show the settings and where each came from."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(as_json: bool) -> None:
    """Every setting, its value with secrets masked, and where it came from."""
    loaded = load()
    rows = [(name, masked(value), loaded.origins[name]) for name, value in leaves(loaded.settings)]
    if as_json:
        click.echo(json.dumps({n: {"value": v, "origin": o} for n, v, o in rows}, ensure_ascii=False, indent=2))
        return
    names, values = (max(len(row[i]) for row in rows) for i in (0, 1))
    for name, value, origin in rows:
        click.echo(f"{name:<{names}}  {value:<{min(values, 40)}}  {origin}")
