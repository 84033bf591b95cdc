"""``tagmill metrics``: what a worker counts and times, and what to do with it."""

import json

import click

from workers.metrics import CATALOGUE, page


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(as_json: bool) -> None:
    """Print the catalogue of metrics, as Markdown; `docs/metrics.md` is made from it."""
    if not as_json:
        click.echo(page(), nl=False)
        return
    for metric in CATALOGUE:
        shown = {name: getattr(metric, name) for name in ("name", "kind", "unit", "labels", "buckets", "about", "use")}
        click.echo(json.dumps(shown, ensure_ascii=False))
