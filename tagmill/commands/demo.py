"""``tagmill demo``: the sample tickets and comments through a real queue and a real worker."""

import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tagging.names import TASK_OF_KIND
from tagging.settings import load
from tagging.wording import counted
from tagmill.embedded import end_on_signals, redis_server
from tagmill.workers import relay_process, worker_process

_WAIT_S: Final = 120.0
_AGAIN: Final = "-again"
_STYLE: Final = {"apply": "green", "suggest": "yellow"}
_MARK: Final = {"apply": "", "suggest": "?"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@click.option("--keep", is_flag=True, help="Leave the queue and the worker running until Ctrl-C.")
def command(as_json: bool, keep: bool) -> None:
    """Tag the sample tickets and comments with a real queue and worker, then clean up."""
    end_on_signals()
    out = Console(stderr=as_json, highlight=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-demo-")))
        server = stack.enter_context(redis_server(folder / "redis"))
        out.print(f"[bold]Redis[/]   {server.binary}, port {server.port}, folder {folder / 'redis'}", soft_wrap=True)
        environ = demo_environ(server.url(0), server.url(1), folder)
        with out.status("starting a worker and loading the demo model…"):
            started = time.monotonic()
            stack.enter_context(relay_process(environ, log=folder / "relay.log"))
            stack.enter_context(worker_process(environ, log=folder / "worker.log"))
        out.print(f"[bold]Worker[/]  ready after {time.monotonic() - started:.1f} s, demo model (not StructBERT)")
        answers, wall_s = _tag(environ, out, show=not as_json)
        summary = summarise(answers, wall_s)
        if as_json:
            click.echo(json.dumps({"summary": summary, "answers": answers}, ensure_ascii=False))
        else:
            _print_summary(out, summary)
        if keep:
            _wait_for_interrupt(out, environ)
    out.print("[dim]nothing is left running[/]")
    sys.exit(0 if summary["failed"] == 0 else 1)


def demo_environ(broker: str, store: str, folder: Path) -> dict[str, str]:
    """Settings of a worker that lives with its command."""
    return {
        "TAGMILL_BROKER__URL": broker,
        "TAGMILL_RESULTS__URL": store,
        "TAGMILL_CACHE__URL": store,
        "TAGMILL_LEDGER__URL": f"sqlite:///{folder / 'ledger.db'}",
        "TAGMILL_MODEL__NAME": "demo",
    }


def samples() -> list[dict[str, Any]]:
    """The texts that ship with the package."""
    lines = files("tagmill").joinpath("samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def summarise(answers: Sequence[Mapping[str, Any]], wall_s: float) -> dict[str, Any]:
    """Counts, times and cache hits of the run; times in milliseconds from being sent to being scored."""
    done = [answer for answer in answers if "error" not in answer]
    times = sorted(answer["queue_ms"] + answer["infer_ms"] for answer in done) or [0.0]
    return {
        "texts": len(answers),
        "failed": len(answers) - len(done),
        "cache_hits": sum(answer["cache"] != "none" for answer in done),
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[min(len(times) - 1, int(0.95 * len(times)))], 1),
        "texts_per_s": round(len(answers) / wall_s, 1),
        "tokens": sum(answer["tokens"] for answer in done),
    }


def _tag(environ: Mapping[str, str], out: Console, *, show: bool) -> tuple[list[dict[str, Any]], float]:
    """The answers as they come, in two waves: customers who write again are answered from the cache."""
    everything = samples()
    first = [s for s in everything if not s["ref"].endswith(_AGAIN)]
    again = [s for s in everything if s["ref"].endswith(_AGAIN)]
    rows: list[tuple[str, ...]] = []
    answers: list[dict[str, Any]] = []
    began = time.monotonic()
    # While it grows only its end is drawn: a table taller than the window would be repeated, not redrawn.
    with Live(console=out, refresh_per_second=8, transient=True, get_renderable=lambda: _table(rows[-_shown(out) :])):
        for wave in (first, again):
            for sample, answer in _answers(environ, wave):
                answers.append({"text": sample["text"], **answer})
                rows.append(_row(sample, answer))
    wall_s = time.monotonic() - began
    if show:
        out.print(_table(rows))
    return answers, wall_s


def _shown(out: Console) -> int:
    """Rows that fit into the window below the lines above."""
    return max(4, out.height - 6)


def _answers(
    environ: Mapping[str, str], wave: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    from ledger.intake import Submission
    from producers.publisher import Publisher
    from tagmill.ledgers import open_ledgers

    settings = load(environ=environ).settings
    publisher = Publisher(settings)
    by_id = {f"demo-{sample['ref']}": sample for sample in wave}
    with open_ledgers(settings) as ledgers:
        # The relay puts it on the queue.
        ledgers.intake.accept(
            [Submission(id=id_, task=TASK_OF_KIND[s["kind"]], message=_message(s)) for id_, s in by_id.items()]
        )
    for id_, answer in publisher.answers(list(by_id), timeout_s=_WAIT_S):
        yield by_id[id_], answer


def _message(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {"source": "demo", **{name: sample[name] for name in ("text", "label_set", "ref")}}


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(expand=True, box=None, padding=(0, 1), header_style="bold")
    table.add_column("kind", no_wrap=True, min_width=7)
    table.add_column("text", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("tags", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("cache", no_wrap=True, min_width=6)
    table.add_column("ms", justify="right", no_wrap=True, min_width=5)
    for row in rows:
        table.add_row(*row)
    return table


def _row(sample: Mapping[str, Any], answer: Mapping[str, Any]) -> tuple[str, ...]:
    text = escape(sample["text"])
    if "error" in answer:
        return sample["kind"], text, f"[red]{escape(answer['error'])}[/]", "", ""
    tags = "  ".join(
        f"[{_STYLE[tag['decision']]}]{tag['label']}{_MARK[tag['decision']]}[/] {tag['score']:.2f}"
        for tag in answer["tags"]
    )
    cache = "" if answer["cache"] == "none" else f"[cyan]{answer['cache']}[/]"
    ms = f"{answer['queue_ms'] + answer['infer_ms']:.0f}"
    return sample["kind"], text, tags or "[dim]abstained[/]", cache, ms


def _print_summary(out: Console, summary: Mapping[str, Any]) -> None:
    out.print(
        f"\n[bold]{counted(summary['texts'], 'text')}[/], {summary['failed']} failed, "
        f"{summary['cache_hits']} from the cache, "
        f"{summary['texts_per_s']} texts/s; from sent to scored p50 {summary['p50_ms']:.0f} ms, "
        f"p95 {summary['p95_ms']:.0f} ms"
    )
    out.print(
        "[green]green[/] is applied, [yellow]yellow?[/] only suggested; ms is from sent to scored, most of it waiting "
        "for the batch before.\nThe demo model is small and was not trained on these texts: some tags are wrong."
    )
    flower = load().settings.flower
    out.print(f"[bold]Flower[/]  each task would stand at http://{flower.address}:{flower.port}/tasks (tagmill flower)")
    out.print(f"[bold]Next[/]    {Path(sys.argv[0])} up", soft_wrap=True)


def _wait_for_interrupt(out: Console, environ: Mapping[str, str]) -> None:
    out.print("\nstill running; in another terminal:")
    for name, value in environ.items():
        out.print(f"  export {name}={value}", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        signal.pause()
