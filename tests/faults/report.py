"""The one line that a fault leaves behind: what was accepted, what became of it, and how long it took."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

LINES_VARIABLE = "TAGMILL_FAULT_LINES"
"""Names the file to which each line is appended as JSON, where it is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What one run of one fault came to. What a run does not measure is ``None`` and printed as ``-``."""

    name: str
    broker: str
    seed: int
    accepted: int
    lost: int
    """Accepted, and neither answered nor parked nor anywhere in the broker."""
    dup_runs: int | None = None
    """Batches' places that went to messages which had had one already."""
    dup_effects: int | None = None
    """Writes to the ledger that changed a row to what it was."""
    wrong_final: int | None = None
    """Documents whose tags are not those of their newest revision."""
    dead: int | None = None
    recovery_s: float | None = None
    """From the end of the fault to the next answer."""
    p95_ms: float | None = None
    rss_mb: float | None = None
    """The most memory that a worker had."""
    kills: int = 0

    @property
    def line(self) -> str:
        """``FAULT name=… broker=… …``"""
        return "FAULT " + " ".join(f"{name}={_shown(value)}" for name, value in asdict(self).items())

    def publish(self) -> None:
        """Print the line, and append it to the file that the environment names."""
        print(self.line)
        if path := os.environ.get(LINES_VARIABLE):
            with Path(path).open("a") as lines:
                lines.write(json.dumps(asdict(self)) + "\n")


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.1f}"
        case _:
            return str(value)
