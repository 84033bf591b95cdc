"""``tagmill models``: the models of the catalogue."""

import json
import resource
import time
from dataclasses import asdict, replace
from pathlib import Path

import click

from tagging.settings import Loaded, load


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
    folder = _folder(loaded)
    for name, entry in catalogue.items():
        try:
            where = str(resolve(name, catalogue=catalogue, models_dir=folder).directory)
        except ModelRefused:
            where = f"not here; tagmill models fetch {name}"
        click.echo(f"{name:<20} {entry.licence:<12} {entry.source or 'shipped':<60} {where}")
        if entry.note:
            click.echo(f"{'':<20} {entry.note}")


@command.command()
@click.argument("name")
@click.option("--revision", default="", help="A tag or commit; default: the catalogue's.")
@click.option("--accept-change", is_flag=True, help="Take it even if the revision's content is not what it was.")
def fetch(name: str, revision: str, accept_change: bool) -> None:
    """Download a model of the catalogue through ModelScope and record the SHA-256 of each file."""
    from tagging.errors import ModelRefused
    from workers.engines.catalogue import load_catalogue
    from workers.engines.fetch import fetch as fetch_model

    loaded = load()
    entry = load_catalogue(loaded.config_dir / "models.toml").get(name)
    if entry is None or entry.source is None:
        raise ModelRefused(f"no model {name!r} to fetch; `tagmill models list` shows those there are")
    manifest = fetch_model(
        name,
        entry.source,
        models_dir=_folder(loaded),
        revision=revision or entry.revision,
        accept_change=accept_change,
    )
    click.echo(f'{name} {manifest.shown_revision}: set model.name = "{name}" to serve it')


@command.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
def convert(checkpoint: Path) -> None:
    """Convert a checkpoint in ModelScope's StructBERT format, strictly, and print where the result lies."""
    from workers.engines.checkpoint import read_checkpoint
    from workers.engines.conversion import convert as convert_checkpoint

    cache = Path(load().settings.model.cache_dir).expanduser()
    click.echo(convert_checkpoint(read_checkpoint(checkpoint), cache / "converted"))


@command.command()
@click.argument("name", default="")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(name: str, as_json: bool) -> None:
    """Load a model as a worker would, and say what it is and what that took.

    NAME is model.name by default. load_s is the time to a passed self-test, imports included; peak_rss_mb is the
    process's largest resident memory so far, pages of the mapped weights included.
    """
    started = time.perf_counter()
    from workers.app import build_engine

    engine = build_engine(_here(load(), name))
    report = {
        **asdict(engine.info),
        "load_s": round(time.perf_counter() - started, 2),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    engine.close()
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    for key, value in report.items():
        click.echo(f"{key:<12} {value}")


def _here(loaded: Loaded, name: str) -> Loaded:
    """The settings with this model, in this process."""
    model = loaded.settings.model.model_copy(update={"isolate": False} | ({"name": name} if name else {}))
    return replace(loaded, settings=loaded.settings.model_copy(update={"model": model}))


def _folder(loaded: Loaded) -> Path:
    return Path(loaded.settings.model.cache_dir).expanduser() / "models"
