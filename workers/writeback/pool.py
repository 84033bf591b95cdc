"""Celery's pool of threads, with what our consumer asks of a pool."""

from collections.abc import Callable, Sequence
from typing import Any

from celery.concurrency.thread import TaskPool as StockPool

from workers.verdicts import Verdict


class TaskPool(StockPool):  # type: ignore[misc]  # celery ships no types
    """As Celery's: each order runs on a thread, and its end is told to the hub thread by Celery's own request."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._hub: Any = None
        super().__init__(*args, **options)

    def register_with_event_loop(self, loop: Any) -> None:
        """Called on the hub thread at each connect."""
        self._hub = loop

    def on_hub(self, callback: Callable[[], object]) -> None:
        """Have this done by the hub thread; without one the message stays unacknowledged and comes back."""
        if self._hub is not None:
            self._hub.call_soon(callback)

    def look_at(self, verdicts: Sequence[Verdict]) -> None:
        """Nothing: what cannot be read as an order says nothing about this worker, which has no model to be wrong."""
