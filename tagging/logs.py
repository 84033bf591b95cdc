"""Log events on standard error: a name, then fields with their units. Customer text never appears in one."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


def configure(level: str = "info", *, node: str = "") -> None:
    """Send structlog's events to standard error as ``time level event key=value``.

    Args:
        level: Events below it are left out.
        node: Said with each event; the logs of several workers may run together.
    """
    structlog.configure(
        processors=[
            *([_said_by(node)] if node else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _said_by(node: str) -> Processor:
    def add_node(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("node", node)
        return event

    return add_node
