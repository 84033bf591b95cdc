"""``tagmill check``: one line for each thing that has to be right."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from tagging.errors import SettingsError, TagmillError
from tagging.settings import Loaded, load
from tagging.urls import mask_url

_ANSWER_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one look found."""

    name: str
    ok: bool
    text: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--no-model", is_flag=True, help="Do not load the model.")
@click.option("--node", default="", help="Only ask whether a worker of this name answers; * stands for anything.")
def command(as_json: bool, no_model: bool, node: str) -> None:
    """Look at settings, label sets, accounts, broker, results, cache, ledger, devices and model: a line each.

    Exit code 0 when all is well, 1 when something is wrong, 2 for wrong settings, 3 for a broker out of reach.
    """
    loaded = _loaded(as_json)
    if node:
        sys.exit(0 if _look("node", lambda loaded: _node(loaded, node), loaded, as_json).ok else 1)
    looks: list[tuple[str, Callable[[Loaded], str]]] = [
        ("labels", _labels),
        ("accounts", _accounts),
        ("broker", _broker),
        ("results", _results),
        ("cache", _cache),
        ("ledger", _ledger),
        ("device", _device),
        ("devices", _devices),
    ]
    looks += [] if no_model else [("model", _model)]
    findings = [_look(name, look, loaded, as_json) for name, look in looks]
    if all(finding.ok for finding in findings):
        sys.exit(0)
    sys.exit(3 if any(finding.name == "broker" and not finding.ok for finding in findings) else 1)


def _loaded(as_json: bool) -> Loaded:
    try:
        loaded = load()
    except SettingsError as e:
        for problem in e.problems:
            _print(Finding(name="settings", ok=False, text=problem), as_json)
        sys.exit(2)
    _print(Finding(name="settings", ok=True, text=str(loaded.config_dir / "app.toml")), as_json)
    return loaded


def _look(name: str, look: Callable[[Loaded], str], loaded: Loaded, as_json: bool) -> Finding:
    try:
        finding = Finding(name=name, ok=True, text=look(loaded))
    except ImportError as e:
        finding = Finding(
            name=name, ok=False, text=f"{e.name} is not installed here; pip install -e '.[worker]' in the checkout"
        )
    except Exception as e:  # noqa: BLE001  # whatever is wrong is what we came to say
        finding = Finding(name=name, ok=False, text=str(e) or repr(e))
    _print(finding, as_json)
    return finding


def _print(finding: Finding, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"name": finding.name, "ok": finding.ok, "text": finding.text}, ensure_ascii=False))
    else:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<9} {finding.text}")


def _accounts(loaded: Loaded) -> str:
    from integrations.accounts import Accounts, refuse_unknown
    from tagging.labels import LabelBook

    book = LabelBook.load(loaded.config_dir / "labels", max_labels=loaded.settings.labels.max_per_set)
    accounts = Accounts.load(loaded.config_dir)
    for account in accounts.values():
        refuse_unknown(account, [label_set.name for label_set in book])
    return f"{len(accounts)} ticketing systems: {', '.join(accounts) or 'none'}"


def _labels(loaded: Loaded) -> str:
    from tagging.labels import LabelBook

    book = LabelBook.load(loaded.config_dir / "labels", max_labels=loaded.settings.labels.max_per_set)
    return f"{len(book)} label sets: {', '.join(s.name for s in book)}"


def _broker(loaded: Loaded) -> str:
    from workers.app import queues
    from workers.refusals import refuse_unsafe_broker

    settings = loaded.settings
    refuse_unsafe_broker(settings, queues(settings))
    allowed = (
        f" (allowed to be unsafe: {', '.join(settings.broker.allow_unsafe)})" if settings.broker.allow_unsafe else ""
    )
    return mask_url(settings.broker.url) + allowed


def _results(loaded: Loaded) -> str:
    url = loaded.settings.results.url
    if url.startswith("redis"):
        with _redis(url) as client:
            client.ping()
    return mask_url(url)


def _cache(loaded: Loaded) -> str:
    url = loaded.settings.cache.url
    if not url:
        return "the worker's own memory only"
    with _redis(url) as client:
        client.ping()
    guess = "; cache.pepper is empty: short texts can be guessed from its keys. Set TAGMILL_CACHE__PEPPER"
    return mask_url(url) + guess * loaded.settings.cache_can_be_guessed


def _ledger(loaded: Loaded) -> str:
    from tagmill.ledgers import open_ledgers

    with open_ledgers(loaded.settings) as ledgers:
        waiting, counts = ledgers.dead.count(), ledgers.intake.counts()
    unfinished = counts.get("accepted", 0) + counts.get("published", 0)
    return f"{mask_url(loaded.settings.ledger.url)}, {unfinished} unfinished in the intake, {waiting} dead letters"


def _device(loaded: Loaded) -> str:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if loaded.settings.model.device.startswith("cuda"):
        raise TagmillError(f"model.device is {loaded.settings.model.device} but torch {torch.__version__} sees no GPU")
    return f"cpu, torch {torch.__version__}, {torch.get_num_threads()} threads"


def _devices(loaded: Loaded) -> str:
    """What a supervisor would start."""
    from workers.supervision.devices import visible_gpus
    from workers.supervision.placement import place

    gpus = visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    asked = "all" if gpus else "cpu"
    children = place(asked, per_device=1, threads=loaded.settings.model.threads, environ=os.environ)
    found = "; ".join(child.device for child in children)
    plural = "worker" if len(children) == 1 else "workers"
    return f"`tagmill worker --devices {asked}` would start {len(children)} {plural}: {found}"


def _node(loaded: Loaded, pattern: str) -> str:
    from producers.app import make_app

    inspect = make_app(loaded.settings).control.inspect(pattern=pattern, matcher="glob", timeout=_ANSWER_S, limit=1)
    if not (answers := inspect.ping()):
        raise TagmillError(f"no worker called {pattern} answers within {_ANSWER_S:g} s")
    return ", ".join(answers)


def _model(loaded: Loaded) -> str:
    from workers.app import build_engine

    engine = build_engine(loaded)
    try:
        info = engine.info
        return f"{info.name} {info.precision} on {info.device}, fingerprint {info.fingerprint[:12]}, self-test passed"
    finally:
        engine.close()


def _redis(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
