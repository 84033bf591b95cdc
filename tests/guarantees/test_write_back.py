"""Tags reach the ticket once, whoever is killed on the way; a tag that is not ours is never taken off.

What is ours, when people interfere: ``tests/ports/test_own_tags.py``. Killed between any two steps:
``tests/ports/test_write_back.py``.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kombu import Exchange

from ledger.database import open_database
from ledger.intake import Intake, Submission
from ledger.upgrade import upgrade
from ledger.writebacks import WriteBackLedger
from tagging.names import EXCHANGE, QUEUE_WRITEBACK, TAG_TICKET, WRITE_BACK
from tagging.settings import load
from tagging.wiring import exchange_type
from tests.broker.octo import ACCOUNTS, OctoServer, connect
from tests.broker.sites import ANSWER_S, CANARY, Broker, Site
from tests.children import background
from tests.processes import ROOT, Worker
from tests.servers import server_folder, wait_until
from workers.writeback.connections import connect_accounts
from workers.writeback.undo import undo

QUICK = {
    "TAGMILL_INTAKE__SWEEP_AFTER_S": "18",
    "TAGMILL_BROKER__VISIBILITY_TIMEOUT_S": "10",
    "TAGMILL_BATCHING__DRAIN_S": "5",
    "TAGMILL_MODEL__TIMEOUT_S": "1",
    "TAGMILL_WRITEBACK__BACKOFF_S": "1",
}


AGENTS = "urgent"
"""Stands on the first ticket before we see it."""


class Desk:
    """A site whose tags go to a server of its own."""

    def __init__(self, site: Site, octo: OctoServer) -> None:
        self.site = site
        self.octo = octo
        upgrade(site.settings.ledger.url)
        self._database = open_database(site.settings.ledger.url)
        self.intake = Intake(self._database)
        self.ledger = WriteBackLedger(self._database)

    def close(self) -> None:
        self._database.close()

    def accept(self, *numbers: str) -> None:
        """Tickets whose tags are to be written back."""
        fields = {"label_set": "shop", "source": "desk", "write_back": {"system": "desk"}}
        self.intake.accept(
            [
                Submission(
                    id=f"t-{n}", task=TAG_TICKET, message={"text": f"{n} {CANARY}", "ref": n, "revision": 1, **fields}
                )
                for n in numbers
            ]
        )

    def send_garbage(self, id_: str) -> None:
        """A stranger's message on the queue of orders."""
        with self.site.client.connection_for_write() as connection, connection.channel() as channel:
            exchange = Exchange(EXCHANGE, type=exchange_type(self.site.settings))
            headers = {"id": id_, "task": WRITE_BACK}
            connection.Producer(channel, exchange=exchange).publish(
                b"{", routing_key=QUEUE_WRITEBACK, headers=headers, content_type="application/json"
            )

    @contextmanager
    def relay(self) -> Iterator[Path]:
        log = self.site.folder / "relay.log"
        started = background(
            [sys.executable, "-m", "tagmill", "relay"], environ=self.site.environ, log=log, cwd=self.site.folder
        )
        with started as process:
            yield log
            process.terminate()
            assert process.wait(20) == 0, log.read_text()

    def writer(self) -> Worker:
        arguments = ("--loglevel", "info", "--without-mingle", "--without-gossip")
        return Worker(
            self.site.folder,
            environ=self.site.environ,
            control=self.site.client,
            name="writeback@tests",
            app="tests.broker.octo_worker",
            arguments=arguments,
        )

    def wait_until_written(self, *numbers: str, timeout_s: float = ANSWER_S) -> None:
        wait_until(f"{numbers} are written back", lambda: self.written() >= set(numbers), timeout_s=timeout_s)

    def written(self) -> set[str]:
        """The tickets of which an order is done."""
        return {
            row.ref or ""
            for n in list(self.octo.labels)  # the server adds to it
            for row in self.intake.by_ref(n, "desk")
            if row.task == WRITE_BACK and row.state == "done"
        }

    def added(self, number: str) -> set[str]:
        """The labels of a ticket that no agent has set."""
        return set(self.octo.labels[number]) - {AGENTS}

    def undo(self) -> None:
        """Take off whatever is ours."""
        connections = connect_accounts(load(environ=self.site.environ), connect=connect)
        found = self.ledger.since(datetime.now(UTC) - timedelta(hours=1))
        assert not [one.error for one in undo(found, ledger=self.ledger, connections=connections) if one.error]

    def own(self, number: str) -> set[str]:
        """The labels of a ticket that are recorded as ours."""
        return {own.tag for own in self.ledger.on_ticket("desk", number) if own.set_at and not own.removed_at}


@pytest.fixture
def desk(broker: Broker) -> Iterator[Desk]:
    with (
        OctoServer().running() as octo,
        server_folder("writeback") as folder,
        closing(broker.site(folder)) as site,
    ):
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "config" / "labels" / "shop.toml").write_text('labels = ["退款", "物流"]\n', encoding="utf-8")
        accounts = ACCOUNTS.format(url=octo.url, thresholds='"退款" = 0.0, "物流" = 0.0')
        (folder / "config" / "accounts.toml").write_text(accounts, encoding="utf-8")
        site.environ |= {**QUICK, "TAGMILL_CONFIG_DIR": str(folder / "config")}
        with closing(Desk(site, octo)) as desk:
            yield desk


def test_from_a_ticket_to_its_label_and_back_with_a_stop_a_busy_server_and_a_kill_on_the_way(desk: Desk) -> None:
    octo, writer = desk.octo, desk.writer()
    octo.labels["1"].append(AGENTS)
    with desk.relay() as log, desk.site.worker().running():
        with writer.running():
            desk.accept("1", "2")
            desk.wait_until_written("1", "2")
            octo.busy = 1
            desk.accept("3")
            desk.wait_until_written("3")
            desk.send_garbage("garbage-1")
            assert "cannot be read" in desk.site.dead("garbage-1").reason
            assert writer.stop() == 0
        assert all(len(desk.added(n)) == 1 and desk.own(n) == desk.added(n) for n in "123")

        with octo.silent(), writer.running():
            desk.accept("4")
            wait_until("the server has the label", lambda: octo.posts["4"] == 1, timeout_s=ANSWER_S)
            writer.kill()
        assert desk.own("4") == set(), "it was killed before it could record the label"
        with writer.running():
            desk.wait_until_written("1", "2", "3", "4", timeout_s=60)
            assert writer.stop() == 0
    assert desk.own("4") == set(octo.labels["4"])
    assert octo.posts == {"1": 1, "2": 1, "3": 1, "4": 1}, "nothing was set twice"
    assert not any(octo.comments.values())
    assert CANARY not in writer.text + log.read_text()

    desk.undo()
    assert octo.labels == {"1": [AGENTS], "2": [], "3": [], "4": []}
