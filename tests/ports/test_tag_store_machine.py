"""Whatever is accepted, edited, duplicated and reordered, a TagStore holds the newest revision it has seen."""

from collections.abc import Iterator
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ledger.database import Database
from tests.answers import stored
from tests.ports.tag_stores import OpenStore, in_database, in_memory
from workers.ports import Stored

DOCUMENTS = ("ticket", "comment", "other")
MODEST = settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class TagStoreMachine(RuleBasedStateMachine):
    """Tasks wait in a queue that delivers in any order and more than once."""

    opened: ClassVar[OpenStore]
    _runs: ClassVar[Iterator[int]] = count()

    @initialize()
    def begin(self) -> None:
        # References of this run only: the store outlives it.
        self.prefix = f"{next(self._runs)}/"
        self.latest = dict.fromkeys(DOCUMENTS, 0)
        self.waiting: list[Stored] = []
        self.delivered: list[Stored] = []
        self.newest: dict[str, int] = {}

    @rule(document=st.sampled_from(DOCUMENTS), step=st.integers(1, 3))
    def edit(self, document: str, step: int) -> None:
        self.latest[document] += step
        self.waiting.append(self._answered(document))

    @rule(document=st.sampled_from(DOCUMENTS))
    def ask_again(self, document: str) -> None:
        self.waiting.append(self._answered(document, task_id=f"again-{len(self.delivered) + len(self.waiting)}"))

    @rule(data=st.data(), most=st.integers(1, 6))
    def deliver_in_any_order(self, data: st.DataObject, most: int) -> None:
        self._deliver(data.draw(st.permutations(self.waiting), label="order")[:most])

    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        if self.delivered:
            self._deliver(data.draw(st.lists(st.sampled_from(self.delivered), max_size=4), label="duplicates"))

    @invariant()
    def the_newest_revision_seen_stands(self) -> None:
        for document in DOCUMENTS:
            standing = [row.revision for row in self.opened.by_ref(self.prefix + document)]
            assert standing == ([self.newest[document]] if document in self.newest else [])

    def _answered(self, document: str, task_id: str | None = None) -> Stored:
        return stored(self.prefix + document, revision=self.latest[document], task_id=task_id)

    def _deliver(self, batch: list[Stored]) -> None:
        self.opened.store.write(batch)
        for one in batch:
            if one in self.waiting:
                self.waiting.remove(one)
            self.delivered.append(one)
            document = one.task.ref.removeprefix(self.prefix)
            self.newest[document] = max(one.task.revision, self.newest.get(document, 0))


def machine_over(opened: OpenStore) -> type[TagStoreMachine]:
    return type("Machine", (TagStoreMachine,), {"opened": opened})


def test_in_memory():
    run_state_machine_as_test(machine_over(in_memory()), settings=MODEST)


def test_in_sqlite(sqlite_database: Database):
    run_state_machine_as_test(machine_over(in_database(sqlite_database)), settings=MODEST)


def test_the_machine_sees_a_store_without_a_fence():
    opened = in_memory()

    class Fenceless:
        def write(self, rows: list[Stored]) -> None:
            for one in rows:
                opened.store._rows.pop(next((r.key for r in opened.by_ref(one.task.ref)), None), None)
                opened.store.write([one])

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine_over(OpenStore(Fenceless(), opened.by_ref, opened.by_id)),  # type: ignore[arg-type]  # a list will do
            settings=settings(MODEST, max_examples=100, database=None, phases=[Phase.generate]),
        )
