"""The worker's app, with a remote-control command that holds up its hub thread, and with less patience than an operator
may set, so that tests need not wait as long."""

import time
from typing import Any

from celery.worker.control import control_command

from workers.app import app

PATIENCE_S = 3.0

app.settings = app.settings.model_copy(
    update={"worker": app.settings.worker.model_copy(update={"loop_timeout_s": PATIENCE_S})}
)


@control_command(args=[("seconds", float)])
def hang(state: Any, seconds: float) -> None:
    """Stand still; remote control runs on the hub thread."""
    time.sleep(seconds)
