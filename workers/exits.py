"""How a worker's process ends, in codes that its supervisor, systemd and scripts can tell apart."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of ``tagmill worker``. A process that a signal ended has none."""

    DONE = 0
    """It was told to stop, and finished or gave back what it had fetched."""
    REFUSED = 1
    """The model cannot be served; another start would end the same way."""
    WRONG_USAGE = 2
    """Settings or options are wrong; another start would end the same way."""
    UNREACHABLE = 3
    """A server that it cannot start without is not there; later it may be."""
    FAILED = 70
    """It broke down, or was ended before it had finished; another start may go well."""
    STUCK = 75
    """Its loop stood still and the watchdog ended it; another start may go well."""
    FULL = 76
    """It passed its memory ceiling, finished what it had fetched, and wants to be started anew."""
    BURYING = 77
    """It parked too many messages in a row and gave back what it had fetched; another start may go well."""


REFUSALS = frozenset({Exit.REFUSED, Exit.WRONG_USAGE})
"""Starting again would change nothing."""
