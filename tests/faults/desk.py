"""A desk: where tickets are accepted by the intake, committed before anything else is done, and a relay that publishes.

desk = Desk(site)
with desk.relay(), trial.worker().running():
    desk.accept(trial, 100)
    ...
    desk.wait_until_finished()
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.database import open_database
from ledger.intake import UNFINISHED, Intake, Submission
from tagging.names import TAG_TICKET
from tests.broker.sites import LABELS, Site
from tests.children import background
from tests.faults.trial import QUICK_TO_RECOVER, Trial
from tests.processes import events_in
from tests.servers import wait_until

SWEEP_AFTER_S = 20
_QUICK = {"intake__sweep_after_s": SWEEP_AFTER_S, "intake__backoff_s": 0.2, "intake__backoff_max_s": 2}


class Desk:
    """The intake of a site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.log: Path = site.folder / "relay.log"
        """What its relay says."""
        self._database = open_database(site.settings.ledger.url)
        self.intake = Intake(self._database)

    def close(self) -> None:
        """Let the ledger go."""
        self._database.close()

    def accept(self, trial: Trial, n: int, *, revision: int = 0, first: int | None = None) -> list[float]:
        """Commit so many tickets one by one, documents from number ``first`` on; the seconds that each took."""
        first = len(trial.refs) if first is None else first
        return [self._accept_one(trial, f"D-{i}", revision) for i in range(first, first + n)]

    @contextmanager
    def relay(self, *, through: str | None = None) -> Iterator[None]:
        """A relay that runs; ``through`` is the broker's URL where a proxy stands before it."""
        url = {} if through is None else {"broker__url": through}
        settings = {**QUICK_TO_RECOVER, **_QUICK, **url}
        environ = {**self.site.environ, **{f"TAGMILL_{key.upper()}": str(value) for key, value in settings.items()}}
        command = [sys.executable, "-m", "tagmill", "relay"]
        with background(command, environ=environ, log=self.log, cwd=self.site.folder):
            self.wait_until_said("relay.started", timeout_s=30)
            yield

    def wait_until_said(self, event: str, *, timeout_s: float = 30.0) -> None:
        """Return once the relay has logged this event."""
        wait_until(f"the relay says {event}", lambda: self.said(event), timeout_s=timeout_s, every_s=0.05)

    def said(self, event: str) -> list[dict[str, str]]:
        """The fields of each event of this name that the relay has logged."""
        return events_in(self.log.read_text(errors="replace"), event) if self.log.exists() else []

    @property
    def unfinished(self) -> int:
        """How many accepted tickets are neither answered nor parked."""
        counts = self.intake.counts()
        return sum(counts.get(state, 0) for state in UNFINISHED)

    def wait_until_finished(self, *, timeout_s: float = 90.0) -> float:
        """Return once nothing is unfinished; the seconds that it took."""
        began = time.monotonic()
        wait_until("all that was accepted is finished", lambda: not self.unfinished, timeout_s=timeout_s, every_s=0.2)
        return time.monotonic() - began

    def _accept_one(self, trial: Trial, ref: str, revision: int) -> float:
        id_ = f"{trial.name}-{ref}-{revision}"
        body = {"text": f"text {ref} {revision}", "labels": list(LABELS), "ref": ref, "revision": revision}
        began = time.monotonic()
        self.intake.accept([Submission(id=id_, task=TAG_TICKET, message=body)])
        took_s = time.monotonic() - began
        trial.accepted([(id_, ref)], revision=revision)
        return took_s
