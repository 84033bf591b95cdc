"""What the hub thread wants written and must not wait for: a thread of its own writes one thing after another.

A ledger or a results backend that is away would otherwise hold up every heartbeat and acknowledgement of the worker.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import structlog

from tagging.errors import StoreUnavailable

log = structlog.get_logger()

_CLOSE_S: Final = 5.0
_RETRY_S: Final = 1.0


class Clerk:
    """Writes in the order in which it is asked to, for as long as the ledger is away too.

    What cannot be written at all is logged as ``unwritten``.
    """

    def __init__(self, *, unwritten: str) -> None:
        self._unwritten = unwritten
        self._waiting: SimpleQueue[tuple[str, Callable[[], object]] | None] = SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, id_: str, write: Callable[[], object]) -> None:
        """Have this written about the message; returns at once."""
        self._waiting.put((id_, write))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"clerk-{self._unwritten}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait a little for what is not written yet."""
        self._waiting.put(None)
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            id_, write = waiting
            try:
                self._with_ledger(write)
            except Exception as e:  # noqa: BLE001  # whatever a backend raises
                log.error(self._unwritten, id=id_, cause=repr(e))

    def _with_ledger(self, write: Callable[[], object]) -> None:
        while True:
            try:
                write()
            except StoreUnavailable as e:
                log.error("ledger.unavailable", cause=str(e), retry_s=_RETRY_S)
                if self._closing.wait(_RETRY_S):
                    raise
            else:
                return
