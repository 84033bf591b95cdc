"""``tagmill models``: the models of the catalogue."""

from pathlib import Path

import click

from tagging.settings import load


@click.group()
def command() -> None:
    """List, fetch and convert models."""


@command.command("list")
def list_() -> None:
    """Every model of config/models.toml and whether it is on this machine."""
    from tagging.errors import ModelRefused
    from workers.engines.catalogue import load_catalogue, resolve

    loaded = load()
    catalogue = load_catalogue(loaded.config_dir / "models.toml")
    folder = Path(loaded.settings.model.cache_dir).expanduser() / "models"
    for name, entry in catalogue.items():
        try:
            where = str(resolve(name, catalogue=catalogue, models_dir=folder).directory)
        except ModelRefused:
            where = f"not here; tagmill models fetch {name}"
        click.echo(f"{name:<20} {entry.licence:<12} {entry.source or 'shipped':<60} {where}")
        if entry.note:
            click.echo(f"{'':<20} {entry.note}")
