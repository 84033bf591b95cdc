"""Flower as this project runs it: behind a password, unable to change anything, and without a customer's text."""

import atexit
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from flower import command as stock
from flower.app import Flower
from flower.events import Events
from flower.options import options
from flower.urls import settings as pages
from tornado.ioloop import IOLoop

COLUMNS: Final = ("name", "uuid", "state", "received", "started", "runtime", "args", "result", "worker")
"""What the page of tasks shows, the narrow ones first; `args` are lengths and digests."""

_MAX_TASKS: Final = 20_000
_FORGET_WORKERS_S: Final = 3600
_REDACTED: Final = re.compile(r"<(\d+ (chars|texts), .*|\w+)>", re.DOTALL)
_HIDDEN: Final = "<not shown>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where Flower listens and who may come in."""

    address: str
    port: int
    user: str
    password: str
    read_only: bool


class _Events(Events):  # type: ignore[misc]  # flower ships no types
    """Events on their way to every page and answer of Flower."""

    def on_event(self, event: dict[str, Any]) -> None:
        super().on_event(without_text(event))


def without_text(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event, without arguments unless they are redacted.

    A worker redacts what it announces; a foreign client that announces what it sent puts the text itself there.
    """
    args, kwargs = event.get("args"), event.get("kwargs")
    hidden = {}
    if args is not None and not _REDACTED.fullmatch(str(args)):
        hidden["args"] = _HIDDEN
    if kwargs not in (None, "{}"):
        hidden["kwargs"] = _HIDDEN
    return {**event, **hidden}


def serve(app: Celery, door: Door) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Flower's own ``FLOWER_*`` variables hold, such as ``FLOWER_URL_PREFIX`` and ``FLOWER_BROKER_API``, except for what
    guards it: that is set here, in this process, so that no password stands in a command line.

    Raises:
        OSError: The port is taken.
    """
    app.set_default()  # Flower asks the current app for results
    stock.apply_env_options()
    guards = {
        "address": door.address,
        "port": door.port,
        "unix_socket": "",
        "auth": "",
        "auth_provider": None,
        "basic_auth": [f"{door.user}:{door.password}"],
        "read_only": door.read_only,
        "debug": False,
        "persistent": False,  # it is a pickle file
    }
    for name, value in guards.items():
        setattr(options, name, value)
    options.tasks_columns = ",".join(COLUMNS)
    options.max_tasks = min(options.max_tasks, _MAX_TASKS)
    options.purge_offline_workers = options.purge_offline_workers or _FORGET_WORKERS_S
    stock.extract_settings()
    stock.setup_logging()
    loop = IOLoop.current()
    events = _Events(
        app,
        io_loop=loop,
        enable_events=not door.read_only,
        max_workers_in_memory=options.max_workers,
        max_tasks_in_memory=options.max_tasks,
    )
    flower = Flower(options=options, capp=app, events=events, io_loop=loop, **pages)
    atexit.register(flower.stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    flower.start_http_server()
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        flower.stop()
