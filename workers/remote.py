"""What a worker does when it is told to from afar, beside Celery's own remote control commands."""

from collections.abc import Sequence
from typing import Any, Protocol

import structlog
from celery.worker.control import control_command

from tagging.names import FORGET

log = structlog.get_logger()


class Forgetful(Protocol):
    """What the command asks of the Celery app."""

    def forget_texts(self, digests: Sequence[str]) -> int:
        """Remember nothing of the texts of these digests; how many were known."""
        ...


@control_command(name=FORGET, args=[("digests", list)], signature="[digest1 [digest2 [… [digestN]]]]")  # type: ignore[untyped-decorator]  # celery ships no types
def forget(state: Any, digests: Sequence[str], **_options: Any) -> dict[str, int]:
    """Forget the logits of texts, by the digests under which the caches know them."""
    app: Forgetful = state.app
    texts = app.forget_texts(digests)
    log.info("memory.forgot", texts=texts)
    return {"ok": texts}
