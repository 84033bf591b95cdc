"""Results of messages that never reach a batch, stored by a thread of their own.

The hub thread parks such a message and must not wait for a results backend that is away: it would answer no heartbeat
and acknowledge nothing meanwhile.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import structlog

log = structlog.get_logger()

_CLOSE_S: Final = 5.0


class Announcements:
    """Stores one result after another; one that cannot be stored is logged, since its message is parked anyway."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[str, Callable[[], object]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, id_: str, store: Callable[[], object]) -> None:
        """Have the result of this message stored; returns at once."""
        self._waiting.put((id_, store))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="announcements", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait a little for what is not stored yet."""
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            id_, store = waiting
            try:
                store()
            except Exception as e:  # noqa: BLE001  # whatever the backend raises
                log.error("result.not_stored", id=id_, cause=repr(e))
