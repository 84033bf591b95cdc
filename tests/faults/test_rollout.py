"""Workers of two versions answer side by side, one takes the other's place, and nothing is lost: row A27.

Today's worker is the earlier of the two, and ``tests.faults.tomorrow`` is the later one, as there is no earlier
release. ``TAGMILL_OLDER`` names a checkout of one: then that is the earlier version, and today's is the later.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.database import open_database
from ledger.upgrade import upgrade
from tests.broker.sites import Site
from tests.commands import Tagmill
from tests.faults.trial import Trial
from tests.processes import ROOT, Worker
from tests.servers import wait_until

OLDER = os.environ.get("TAGMILL_OLDER")
SLOW = {"model__name": "fake:pass_s=0.3", "batching__max_messages": 8}
"""Slower than a sender on either broker."""
LABEL_SET = 'labels = ["parcel", "refund"]\n'
"""Comes with the later version."""


class Rollout:
    """A site between two versions, and a trial on it that the earlier one began."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.trial = Trial(site, name=name, migrate=migrate_as_older)
        self._config = site.folder / "later"
        shutil.copytree(ROOT / "config", self._config)
        (self._config / "labels" / "newest.toml").write_text(LABEL_SET)

    def older(self, name: str) -> Worker:
        """A worker of the earlier version."""
        worker = self.trial.worker(name=f"{name}@tests", **SLOW)
        worker.command = ["env", f"PYTHONPATH={OLDER or ROOT}", *worker.command]
        return worker

    def newer(self, name: str) -> Worker:
        """A worker of the later version, with what its deployment brings."""
        worker = self.trial.worker(name=f"{name}@tests", **SLOW)
        worker.command[worker.command.index("workers.app")] = "workers.app" if OLDER else "tests.faults.tomorrow"
        worker.command = ["env", f"TAGMILL_CONFIG_DIR={self._config}", *worker.command]
        return worker

    def send_as_older(self) -> None:
        """Send what senders of either version do."""
        self.trial.accept(100)

    def send_as_newer(self) -> set[str]:
        """Send what only senders of the later version do as well; the ids of what an earlier worker parks."""
        accept = self.trial.accept
        accept(20, schema_version="1.99", colour="green")
        unknown = accept(20, labels=None, label_set="newest")
        if not OLDER:
            unknown += accept(20, schema_version="2.0", body="a text of tomorrow")
        return set(unknown)

    def replace(self, worker: Worker) -> None:
        """End a worker in the middle of its work, as a deployment does."""
        self.send_as_older()
        assert len(self.trial.done) < len(self.trial.refs), "there is load"
        assert worker.stop() == 0

    def requeue(self) -> int:
        """Put the dead letters back, as the runbook says; how many there were."""
        parked = len(self.trial.witness.dead())
        ran = Tagmill(self.site.folder, self.site.environ)("dead", "requeue", "--all")
        assert ran.code == 0, ran.err
        return parked

    def settle(self) -> None:
        """Return once everything is answered and nothing parked."""
        trial = self.trial
        trial.settle()
        wait_until("nothing is parked", lambda: not trial.witness.dead(), timeout_s=30)
        trial.settle()


@pytest.mark.parametrize("which", ["pg_site", "rabbit_site"], ids=["redis and postgresql", "rabbitmq and sqlite"])
def test_a_version_that_takes_anothers_place_under_load_loses_nothing(
    request: pytest.FixtureRequest, which: str
) -> None:
    rollout = Rollout(request.getfixturevalue(which), "rollout")
    trial, before = rollout.trial, schema_of(rollout.site)
    with rollout.older("w1").running() as first, rollout.older("w2").running() as second:
        trial.accept(300)  # enough for the time in which the third starts
        trial.wait_for_more()
        with rollout.newer("w3").running() as third:  # it migrates the ledger that the others are writing to
            assert schema_of(rollout.site) != before, "or the test shows nothing about migrations"
            rollout.replace(first)
            unknown = rollout.send_as_newer()  # a sender that was upgraded before the workers
            trial.settle()
            assert set(trial.witness.dead()) <= unknown, "what both versions know is answered by either"
            assert second.events("batch.tagged"), "both have answered"
            assert third.events("batch.tagged")
            with rollout.newer("w4").running():
                rollout.replace(second)
                parked = rollout.requeue()
                assert parked, "or the test shows nothing about that"
                rollout.settle()
    assert_all_done(trial, parked)


@pytest.mark.skipif(bool(OLDER), reason="an earlier checkout may still refuse a newer ledger")
def test_a_version_that_is_taken_back_under_load_loses_nothing_and_needs_no_older_ledger(site: Site) -> None:
    rollout = Rollout(site, "rolled_back")
    trial = rollout.trial
    with rollout.newer("w1").running() as newer:
        rollout.send_as_older()
        trial.wait_for_more()
        with rollout.older("w2").running() as older:
            assert older.events("ledger.newer"), "or the test shows nothing about the schema"
            rollout.replace(newer)
            unknown = rollout.send_as_newer()
            trial.settle()
            assert set(trial.witness.dead()) == unknown
    with rollout.newer("w3").running():
        parked = rollout.requeue()
        rollout.settle()
    assert_all_done(trial, parked)


def assert_all_done(trial: Trial, parked: int) -> None:
    """Everything is answered, and nothing ran twice but what was parked in between."""
    fault = trial.report()
    assert (fault.lost, fault.dead, fault.dup_runs, fault.dup_effects) == (0, 0, parked, 0)


def migrate_as_older(url: str) -> None:
    """Make the ledger as the earlier version does."""
    if OLDER is None:
        upgrade(url)
        return
    program = f"from ledger.upgrade import upgrade; upgrade({url!r})"
    environ = {**os.environ, "PYTHONPATH": OLDER}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, cwd=Path(OLDER))


def schema_of(site: Site) -> str:
    """The number of the ledger's schema."""
    database = open_database(site.settings.ledger.url)
    try:
        with database.transaction() as connection:
            return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
    finally:
        database.close()
