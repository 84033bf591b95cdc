"""``tagmill worker``: take messages off the queues and tag them."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from tagging.errors import EngineError, StoreUnavailable
from workers.exits import Exit
from workers.nodes import new_node


def _refuse(_context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        from workers.app import POOL_HINT

        raise click.UsageError(f"{parameter.opts[-1]} {value}: {POOL_HINT}")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.option(
    "--devices",
    help="A supervisor with a worker process for each: all, cpu, or GPUs by number or UUID, with commas between. "
    "Left out: one worker, here.",
)
@click.option("--workers-per-device", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("-Q", "--queues", default="", help="Queues to consume, comma-separated. Default: all of tag.*.")
@click.option("-n", "--name", default="", help="Node name. Default: tagmill-<token>@<host>, new at each start.")
@click.option("-l", "--loglevel", default="WARNING", show_default=True, help="Of Celery's own log.")
@click.option("-P", "--pool", hidden=True, expose_value=False, callback=_refuse)
@click.option("-c", "--concurrency", hidden=True, expose_value=False, callback=_refuse)
@click.option("--autoscale", hidden=True, expose_value=False, callback=_refuse)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def command(
    devices: str | None,
    workers_per_device: int,
    queues: str,
    name: str,
    loglevel: str,
    celery_options: tuple[str, ...],
) -> None:
    """Take messages off the queues and tag them, in micro-batches, until SIGTERM.

    A first SIGTERM finishes what was fetched; SIGQUIT hands it back to the broker. CELERY_OPTIONS go to `celery worker`
    as they are.

    Exit codes: 0 told to stop, 1 the model is refused, 2 wrong settings or options, 3 the ledger is out of reach,
    70 broke down, 75 ended by the watchdog, 76 passed its memory ceiling,
    77 parked too many messages in a row.
    """
    celery = ["-l", loglevel, *(["-Q", queues] if queues else []), *celery_options]
    if devices is None:
        sys.exit(_serve(name or new_node(), celery))
    if name:
        raise click.UsageError("--name is for one worker; with --devices each has a name of its own")
    sys.exit(_supervise(devices, workers_per_device, celery))


def _serve(node: str, celery_options: Sequence[str]) -> int:
    """Be the worker of this name; how it ended."""
    from celery.utils.nodenames import host_format

    from tagging import logs
    from workers.app import make_app
    from workers.memory import require_room

    app = make_app()
    logs.configure(app.settings.log.level, node=host_format(node))
    try:
        # Before Celery starts: a model that is refused ends here, in its own words.
        app.build_pipeline()
    except (EngineError, StoreUnavailable) as e:
        click.echo(f"{type(e).__name__}: {e}", err=True)
        return Exit.UNREACHABLE if isinstance(e, StoreUnavailable) else Exit.FAILED
    require_room(app.settings.worker.max_memory_mb)
    return app.serve(["-n", node, "--without-gossip", "--without-mingle", *celery_options])


def _supervise(devices: str, per_device: int, celery_options: Sequence[str]) -> int:
    """Run the workers of these devices; how it ended."""
    from tagging import logs
    from tagging.settings import load
    from workers.supervision.decisions import Limits
    from workers.supervision.loop import supervise
    from workers.supervision.placement import place, with_metrics

    settings = load().settings
    logs.configure(settings.log.level)
    children = place(devices, per_device=per_device, threads=settings.model.threads, environ=os.environ)
    limits = Limits(
        drain_s=settings.stop_s,
        max_crashes=settings.worker.max_crashes,
        crash_window_s=settings.worker.crash_window_s,
    )
    return supervise(
        with_metrics(children, first_port=settings.metrics.port),
        command=lambda node: [sys.executable, "-m", "tagmill", "worker", "-n", node, *celery_options],
        limits=limits,
    )
