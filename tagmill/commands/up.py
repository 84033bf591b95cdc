"""``tagmill up``: a broker, a relay and a worker, until Ctrl-C."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from tagging.settings import Loaded, load
from tagging.urls import mask_url
from tagmill.embedded import end_on_signals, redis_server, stop
from tagmill.workers import relay_process, worker_process

_LOOK_EVERY_S: Final = 0.5


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".tagmill"),
    show_default=True,
    help="Folder of the Redis that is started and of the worker's log.",
)
@click.option("--flower/--no-flower", default=False, help="Start Flower as well.")
def command(data: Path, flower: bool) -> None:
    """Run what is configured, until Ctrl-C: a relay, a worker, and a Redis of our own where none answers at broker.url.

    That Redis keeps its queue in --data across restarts, and takes the port of broker.url, so that `tagmill enqueue` in
    another terminal finds it without further ado.
    """
    end_on_signals()
    loaded = load()
    data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        _start_broker(stack, loaded, data)
        relay = stack.enter_context(relay_process({}, log=data / "relay.log"))
        click.echo(f"relay     publishes what is accepted, log {data / 'relay.log'}")
        click.echo("worker    starting; the model loads")
        worker = stack.enter_context(worker_process({}, log=data / "worker.log"))
        click.echo(f"worker    ready, model {loaded.settings.model.name}, log {data / 'worker.log'}")
        if flower:
            _start_flower(stack, loaded)
        click.echo(f"try       {sys.argv[0]} enqueue '快递三天没动了，麻烦查一下' -S shop --wait 10")
        click.echo("stop      Ctrl-C")
        _wait({"worker": worker, "relay": relay})
    click.echo("stopped; what was fetched is done, the rest waits in the queue")


def _start_broker(stack: ExitStack, loaded: Loaded, data: Path) -> None:
    url = urlsplit(loaded.settings.broker.url)
    local = url.scheme == "redis" and url.hostname in ("127.0.0.1", "localhost") and not url.password
    port = url.port or 6379
    if not local or _answers(port):
        click.echo(f"broker    {mask_url(loaded.settings.broker.url)}")
        return
    server = stack.enter_context(redis_server(data.resolve() / "redis", port=port))
    click.echo(f"broker    {server.binary}, port {server.port}, data {data / 'redis'}")


def _start_flower(stack: ExitStack, loaded: Loaded) -> None:
    settings = loaded.settings.flower
    process = subprocess.Popen([sys.executable, "-m", "tagmill", "flower"], env=dict(os.environ))  # ourselves
    stack.callback(stop, process)
    click.echo(f"flower    http://{settings.address}:{settings.port}")


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _wait(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Until one of them ends or somebody asks us to.

    Raises:
        ClickException: One ended that nobody had told to.
    """
    with suppress(KeyboardInterrupt):
        while True:
            for name, process in children.items():
                match process.poll():
                    case None:
                        continue
                    case 0:
                        click.echo(f"{name:<9} was told to end, and ended; so does everything else")
                        return
                    case code:
                        raise click.ClickException(f"the {name} ended with exit code {code}; its log says why")
            time.sleep(_LOOK_EVERY_S)
