"""A site with its intake, as a program that accepts tickets has it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ledger.database import open_database
from ledger.intake import Intake, IntakeRow, Submission
from ledger.upgrade import upgrade
from tagging.names import TAG_TICKET
from tests.broker.sites import ANSWER_S, CANARY, LABELS, Site
from tests.children import background
from tests.commands import Tagmill
from tests.servers import wait_until


def text(id_: str, **fields: object) -> Submission:
    """A ticket with that text and reference."""
    body = {"text": f"{id_} {CANARY}", "labels": list(LABELS), "source": "zendesk", "ref": f"R-{id_}", **fields}
    return Submission(id=id_, task=TAG_TICKET, message=body)


class Desk:
    """A site with its intake, as a program that accepts tickets has it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._database = open_database(site.settings.ledger.url)
        self.intake = Intake(self._database)

    @classmethod
    def new(cls, site: Site) -> Self:
        """The desk of a site that no worker has made a ledger for."""
        upgrade(site.settings.ledger.url)
        return cls(site)

    def close(self) -> None:
        self._database.close()

    def command(self, *arguments: str) -> Any:
        return Tagmill(self.site.folder, self.site.environ)(*arguments)

    @contextmanager
    def relay(self, **environ: str) -> Iterator[Path]:
        """A relay that runs; its log."""
        log = self.site.folder / "relay.log"
        started = background(
            [sys.executable, "-m", "tagmill", "relay"],
            environ={**self.site.environ, **environ},
            log=log,
            cwd=self.site.folder,
        )
        with started as process:
            yield log
            process.terminate()
            assert process.wait(20) == 0, log.read_text()

    def wait_for(self, state: str, *ids: str, timeout_s: float = ANSWER_S) -> None:
        wait_until(
            f"{ids} are {state}",
            lambda: all(row is not None and row.state == state for row in map(self.row, ids)),
            timeout_s=timeout_s,
            every_s=0.1,
        )

    def row(self, id_: str) -> IntakeRow | None:
        return self.intake.get(id_)
