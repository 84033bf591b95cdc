"""Runs that began and did not end are counted, each message by itself, until its worker outlives one."""

from collections.abc import Callable

import pytest

from ledger.crashes import CrashLedger
from ledger.database import Database
from workers.ports import Crashes
from workers.stores.memory import MemoryCrashes


@pytest.fixture(params=["memory", "sqlite_database", "postgres_database"])
def reopened(request: pytest.FixtureRequest) -> Callable[[], Crashes]:
    """The counts as the next worker sees them."""
    if request.param == "memory":
        memory = MemoryCrashes()
        return lambda: memory
    database: Database = request.getfixturevalue(request.param)
    return lambda: CrashLedger(database)


def test_each_run_that_begins_counts(reopened):
    assert [reopened().begin("a") for _ in range(3)] == [1, 2, 3]


def test_a_message_is_not_counted_for_its_neighbour(reopened):
    reopened().begin("a")
    assert reopened().begin("b") == 1


def test_a_run_that_ends_clears_the_count_of_its_message_only(reopened):
    for id_ in ("a", "a", "b"):
        reopened().begin(id_)
    reopened().end(["a"])
    assert (reopened().begin("a"), reopened().begin("b")) == (1, 2)


def test_ending_what_never_began_changes_nothing(reopened):
    reopened().end(["a"])
    assert reopened().begin("a") == 1
