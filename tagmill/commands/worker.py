"""``tagmill worker``: take messages off the queues and tag them."""

import os
import socket

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.option("-Q", "--queues", default="", help="Queues to consume, comma-separated. Default: all of tag.*.")
@click.option("-n", "--name", default="", help="Node name. Default: tagmill-<pid>@<host>, unique on purpose.")
@click.option("-l", "--loglevel", default="WARNING", show_default=True, help="Of Celery's own log.")
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def command(queues: str, name: str, loglevel: str, celery_options: tuple[str, ...]) -> None:
    """Take messages off the queues and tag them, in micro-batches, until SIGTERM.

    A first SIGTERM finishes what was fetched; SIGQUIT hands it back to the broker. CELERY_OPTIONS go to `celery worker`
    as they are.
    """
    from workers.app import make_app

    app = make_app()
    # Before Celery starts: a model that is refused ends here, in its own words.
    app.build_pipeline()
    # Two workers of one name fight over their control queue on RabbitMQ.
    node = name or f"tagmill-{os.getpid()}@{socket.gethostname()}"
    arguments = ["worker", "-n", node, "-l", loglevel, "--without-gossip", "--without-mingle", *celery_options]
    app.worker_main(arguments + (["-Q", queues] if queues else []))
