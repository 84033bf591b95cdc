"""``tagmill erase``: remove a document everywhere, for good."""

import json
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

import click

from tagging.settings import Settings, load
from tagging.wording import counted

if TYPE_CHECKING:
    from ledger.erasure import Erased

_NOUNS: Final = {
    "tags": "tag",
    "own_tags": "own tag",
    "intake": "message",
    "dead_letters": "dead letter",
    "results": "result",
    "cached": "cached text",
    "workers": "worker",
}


@click.command()
@click.argument("source")
@click.argument("ref")
@click.option("--kind", type=click.Choice(["ticket", "comment"]), help="Default: whatever has this reference.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(source: str, ref: str, kind: str | None, yes: bool, as_json: bool) -> None:
    """Remove the document REF of SOURCE everywhere: its messages, tags, dead letters, results and cached scores.

    A digest of its name stays, so that a late duplicate is refused. Messages about it that still wait in a queue are
    refused when a worker comes to them. Workers that run forget it as well; "workers" says how many did. Exit code 1
    when the results, the cache or a worker could not be reached; what is left there expires by itself.
    """
    from ledger.erasure import Eraser
    from ledger.upgrade import refuse_newer
    from tagging.documents import Document
    from tagmill.ledgers import open_ledgers

    settings = load().settings
    if not yes:
        click.confirm(f"erase {source}/{ref} for good?", abort=True)
    with open_ledgers(settings) as ledgers:
        refuse_newer(ledgers.database)  # its tables may hold the document too
        eraser = Eraser(ledgers.database)
        erased = [eraser.erase(Document(source, ref, kind)) for kind in ([kind] if kind else ["ticket", "comment"])]
    failures: list[str] = []
    digests = _digests(settings, erased)
    counts = {
        "tags": sum(one.tags for one in erased),
        "own_tags": sum(one.own_tags for one in erased),
        "intake": sum(one.intake for one in erased),
        "dead_letters": sum(one.dead_letters for one in erased),
        "results": _forget_results(settings, {id_ for one in erased for id_ in one.task_ids}, failures),
        "cached": _forget_cached(settings, digests, failures),
        "workers": _forget_in_memory(settings, digests, failures),
    }
    click.echo(json.dumps(counts) if as_json else ", ".join(counted(n, _NOUNS[name]) for name, n in counts.items()))
    for failure in failures:
        click.echo(failure, err=True)
    sys.exit(1 if failures else 0)


def _forget_results(settings: Settings, task_ids: Collection[str], failures: list[str]) -> int:
    from producers.publisher import Publisher

    publisher = Publisher(settings)
    try:
        return publisher.forget(task_ids)
    except Exception as e:  # noqa: BLE001  # any backend, any of its errors
        expires = f"they expire {settings.results.expires_s} s after they were stored"
        failures.append(f"results of {', '.join(sorted(task_ids))} are still there ({type(e).__name__}); {expires}")
        return 0
    finally:
        publisher.close()


def _digests(settings: Settings, erased: Sequence["Erased"]) -> set[str]:
    """The names under which the caches know the document's texts."""
    from tagging.digests import text_digest
    from tagging.text import clean

    pepper = settings.cache.pepper.get_secret_value()
    return {text_digest(clean(text), pepper=pepper) for one in erased for text in one.texts}


def _forget_cached(settings: Settings, digests: Collection[str], failures: list[str]) -> int:
    import redis

    from workers.stores.forgetting import forget_texts

    if not settings.cache.url or not digests:
        return 0
    try:
        return forget_texts(settings.cache.url, digests)
    except redis.RedisError as e:
        expires = f"it expires {settings.cache.ttl_s} s after it was stored"
        failures.append(f"what is cached is still there ({type(e).__name__}); {expires}")
        return 0


def _forget_in_memory(settings: Settings, digests: Collection[str], failures: list[str]) -> int:
    """How many workers have forgotten the document's texts."""
    from tagging.errors import BrokerUnreachable
    from tagmill.telling import tell_to_forget

    if not digests:
        return 0
    forgets = f"what a worker remembers goes {settings.cache.ttl_s} s after it was stored, or when it is restarted"
    try:
        told = tell_to_forget(settings, digests)
    except BrokerUnreachable as e:
        failures.append(f"no worker could be told to forget it ({e}); {forgets}")
        return 0
    if told.silent:
        failures.append(f"no answer from {', '.join(sorted(told.silent))}, told to forget it; {forgets}")
    return len(told.done)
