"""Log events on standard error: a name, then fields with their units. Customer text never appears in one."""

import logging
import sys
from datetime import UTC, datetime

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
        # Not the one that prints: it writes the end of a line by itself, and workers that share a log come in between.
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def configure_plain(package: str, level: str) -> None:
    """Send what this package says through ``logging`` to standard error in the same form, for a process without Celery.

    Its messages are events with their fields; other packages are heard from ``warning`` on, as without this.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EventForm())
    logger = logging.getLogger(package)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())


class _EventForm(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        return f"timestamp={moment} level={record.levelname.lower()} event={record.getMessage()}"


def _said_by(node: str) -> Processor:
    def add_node(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("node", node)
        return event

    return add_node
